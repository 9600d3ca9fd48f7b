package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

type devicesCommand struct {
	server
}

func (c *devicesCommand) Run(ctx context.Context, con console) error {
	var list struct {
		Devices []bus.DeviceRecord `json:"devices"`
	}
	if err := c.ask(ctx, "GET", "/v1/devices", nil, &list); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, list.Devices)
	}
	if len(list.Devices) == 0 {
		fmt.Fprintln(con.err, "no devices yet: enrol one with gaitkeeper enroll NAME")
		return nil
	}
	rows := [][]string{{"DEVICE", "STATE", "ENROLLED", "STREAMS"}}
	for _, d := range list.Devices {
		state := "enrolled"
		if d.Revoked {
			state = "revoked"
		}
		rows = append(rows, []string{string(d.Device), state, stamp(d.Enrolled), names(d.Streams)})
	}
	return table(con.out, rows)
}

func names[T ~string](ids []T) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = string(id)
	}
	return strings.Join(words, ", ")
}

type revokeCommand struct {
	server
	Device string `arg:"" help:"Name of the device."`
}

// revokeTimeout is above the longest lease that may have to be waited for.
const revokeTimeout = 15 * time.Minute

func (c *revokeCommand) Run(ctx context.Context, con console) error {
	if _, err := gk.ParseDeviceID(c.Device); err != nil {
		return err
	}
	c.timeout = revokeTimeout
	var done bus.Revocation
	if err := c.ask(ctx, "POST", "/v1/devices/"+url.PathEscape(c.Device)+"/revoke", nil, &done); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, done)
	}
	how := "every transport has wiped its keys"
	if done.How == bus.RevokedByLease {
		who := "processing did not answer"
		if len(done.Missing) > 0 {
			who = names(done.Missing) + " did not confirm"
		}
		how = who + ", and the lease on its keys has run out"
	}
	fmt.Fprintf(con.out, "%s is revoked: %s (%s)\n", done.Device, how, done.Waited.Round(10*time.Millisecond))
	if !done.Cut {
		fmt.Fprintln(con.err, "The broker could not be told to cut its connection: withdraw its access there too.")
	}
	fmt.Fprintf(con.err, "To trust it again: gaitkeeper enroll %s\n", done.Device)
	return nil
}
