package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/app"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// server is which server an operator's command talks to. The token is no flag:
// command lines can be seen by everybody on a machine.
type server struct {
	Data   string `type:"path" default:"${data_dir}" placeholder:"DIR" help:"Data directory of the server, for its address, token and CA."`
	Server string `placeholder:"URL" help:"Address of the API, instead of the one in the data directory. The token is then taken from the variable GAITKEEPER_TOKEN, if it is set."`
	CA     string `name:"ca" type:"path" placeholder:"FILE" help:"CA certificate of the server in PEM form, instead of the one in the data directory."`
	Token  string `hidden:"" help:"Token of the API."`
	JSON   bool   `name:"json" help:"Print JSON."`

	timeout time.Duration
}

func (s server) ask(ctx context.Context, method, path string, in, out any) error {
	c, err := app.NewClient(app.ClientConfig{Data: s.Data, Server: s.Server, Token: s.Token, CA: s.CA, Timeout: s.timeout})
	if err != nil {
		return err
	}
	return c.Do(ctx, method, path, in, out)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table prints rows in columns, the first row as their heads.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}

type enrollCommand struct {
	server
	Name    string   `arg:"" name:"device" help:"Name of the device: letters, digits, '-' and '_'."`
	Streams []string `name:"stream" placeholder:"NAME" help:"A stream that the device may send, instead of one with its own name. Repeatable."`
	TTL     string   `name:"ttl" placeholder:"TIME" help:"How long the token may be used, instead of what the server is set to."`
}

func (c *enrollCommand) Run(ctx context.Context, con console) error {
	var answer struct {
		Device  gk.DeviceID `json:"device"`
		Token   string      `json:"token"`
		Expires time.Time   `json:"expires"`
	}
	in := map[string]any{"device": c.Name, "streams": c.Streams, "ttl": c.TTL}
	if err := c.ask(ctx, "POST", "/v1/enroll", in, &answer); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, answer)
	}
	fmt.Fprintln(con.out, answer.Token)
	fmt.Fprintf(con.err, "Works once, until %s. On the device:\n  gaitkeeper device --join TOKEN --source udp://127.0.0.1:5000\n", answer.Expires.Local().Format(time.DateTime))
	return nil
}

type streamsCommand struct {
	server
	Stream string `arg:"" optional:"" help:"Show this stream alone."`
}

func (c *streamsCommand) Run(ctx context.Context, con console) error {
	var list bus.StreamsReply
	if c.Stream == "" {
		if err := c.ask(ctx, "GET", "/v1/streams", nil, &list); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(con.out, list.Streams)
		}
	} else {
		var one bus.StreamInfo
		if err := c.ask(ctx, "GET", "/v1/streams/"+url.PathEscape(c.Stream), nil, &one); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(con.out, one)
		}
		list.Streams = []bus.StreamInfo{one}
	}
	if len(list.Streams) == 0 {
		fmt.Fprintln(con.err, "no streams yet: enrol a device with gaitkeeper enroll NAME")
		return nil
	}
	rows := [][]string{{"STREAM", "DEVICE", "STATE", "EPOCH", "KEY AGE", "ROTATIONS", "LAST TOOK", "SENT", "DELIVERED", "LOST", "VIEWERS"}}
	for _, s := range list.Streams {
		var delivered, lost uint64
		viewers := 0
		for _, t := range s.Status {
			delivered, lost, viewers = max(delivered, t.Delivered), max(lost, t.Lost), viewers+t.Viewers
		}
		rows = append(rows, []string{
			string(s.Stream), string(s.Device), s.State, fmt.Sprint(s.Epoch), age(s.KeySince), fmt.Sprint(s.Rotations),
			took(s.LastTook), fmt.Sprint(s.Sent), fmt.Sprint(delivered), fmt.Sprint(lost), fmt.Sprint(viewers),
		})
	}
	return table(con.out, rows)
}

type keysCommand struct {
	Show      showKeysCommand  `cmd:"" default:"withargs" help:"List the keys of a stream (never their bytes)."`
	RotateKEK rotateKEKCommand `cmd:"" name:"rotate-kek" help:"Wrap the key store with another key-encryption key. The server of this data directory has to be stopped."`
}

type showKeysCommand struct {
	server
	Stream string `arg:"" help:"Name of the stream."`
	All    bool   `help:"Destroyed keys too."`
}

func (c *showKeysCommand) Run(ctx context.Context, con console) error {
	var list bus.KMSKeysReply
	if err := c.ask(ctx, "GET", "/v1/streams/"+url.PathEscape(c.Stream)+"/keys", nil, &list); err != nil {
		return err
	}
	if !c.All {
		list.Keys = slices.DeleteFunc(list.Keys, func(k bus.KeyInfo) bool { return k.State == bus.KeyDestroyed })
	}
	if c.JSON {
		return printJSON(con.out, list.Keys)
	}
	if len(list.Keys) == 0 {
		fmt.Fprintf(con.err, "no keys of a stream %s: gaitkeeper streams lists the streams, --all adds keys that are destroyed\n", c.Stream)
		return nil
	}
	rows := [][]string{{"EPOCH", "STATE", "SESSION", "CREATED", "ACTIVATED", "DEACTIVATED", "DESTROYED"}}
	for _, k := range list.Keys {
		rows = append(rows, []string{
			fmt.Sprint(k.Epoch), string(k.State), k.Session.String()[:8], stamp(k.Created), stamp(k.Activated), stamp(k.Deactivated), stamp(k.Destroyed),
		})
	}
	return table(con.out, rows)
}

type rotateCommand struct {
	server
	Stream string `arg:"" help:"Name of the stream."`
	NoWait bool   `help:"Do not wait until the device has confirmed the new key."`
}

func (c *rotateCommand) Run(ctx context.Context, con console) error {
	var done bus.RotateReply
	if err := c.ask(ctx, "POST", "/v1/streams/"+url.PathEscape(c.Stream)+"/rotate", map[string]bool{"wait": !c.NoWait}, &done); err != nil {
		return err
	}
	switch {
	case c.JSON:
		return printJSON(con.out, done)
	case done.Done:
		fmt.Fprintf(con.out, "%s: epoch %d, confirmed by the device after %s\n", c.Stream, done.Epoch, took(done.Took))
	default:
		fmt.Fprintf(con.out, "%s: epoch %d is ordered\n", c.Stream, done.Epoch)
	}
	return nil
}

type versionCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (c *versionCommand) Run(con console) error {
	if c.JSON {
		return printJSON(con.out, map[string]string{"version": buildVersion()})
	}
	fmt.Fprintln(con.out, "gaitkeeper", buildVersion())
	return nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("01-02 15:04:05.000")
}

func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return time.Since(t).Round(time.Second).String()
}

func took(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
