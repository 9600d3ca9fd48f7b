package transport

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// Output says where a stream goes besides its HTTP viewers.
type Output struct {
	Stream gk.StreamID // empty: every stream
	// URL is udp://host:port, rtp://host:port or file:PATH. {stream} in it stands
	// for the stream's name.
	URL string
}

// placeholder stands for the stream's name in an output's URL.
const placeholder = "{stream}"

// ParseOutput reads [STREAM=]URL and checks what can be checked before a stream
// is there. The error says what is wrong and what would be right.
func ParseOutput(text string) (Output, error) {
	o := Output{URL: text}
	if name, rest, ok := strings.Cut(text, "="); ok && !strings.ContainsAny(name, ":/") {
		id, err := gk.ParseStreamID(name)
		if err != nil {
			return Output{}, fmt.Errorf("output %q: %w", text, err)
		}
		o.Stream, o.URL = id, rest
	}
	scheme, rest, err := splitURL(strings.ReplaceAll(o.URL, placeholder, "stream"))
	if err != nil {
		return Output{}, fmt.Errorf("output %q: %w", text, err)
	}
	if scheme == "file" {
		dir := filepath.Dir(rest)
		if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
			return Output{}, fmt.Errorf("output %q: directory %s is not there: make it or choose another", text, dir)
		}
		if o.Stream == "" && !strings.Contains(o.URL, placeholder) {
			return Output{}, fmt.Errorf("output %q would mix every stream in one file: name one stream (STREAM=%s) or put %s into the path", text, o.URL, placeholder)
		}
	}
	return o, nil
}

// splitURL gives the scheme and, for udp and rtp, host:port; for file, the path.
func splitURL(text string) (scheme, rest string, err error) {
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" || strings.HasSuffix(path, "/") {
			return "", "", fmt.Errorf("no file is named: write file:/path/name.ts")
		}
		return "file", path, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", "", fmt.Errorf("not a URL: %w", err)
	}
	if u.Scheme != "udp" && u.Scheme != "rtp" {
		return "", "", fmt.Errorf("outputs go to udp://host:port, rtp://host:port or file:PATH, not to %q", u.Scheme)
	}
	if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" {
		return "", "", fmt.Errorf("host and port are needed: write %s://host:port", u.Scheme)
	}
	if u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return "", "", fmt.Errorf("nothing may follow the port: write %s://%s", u.Scheme, u.Host)
	}
	return u.Scheme, u.Host, nil
}

// output takes what each batch delivers, in order. deliver must not wait and must
// not keep what it is given; the caller holds Service.mu.
type output interface {
	deliver(ses *session, d *delivery)
	// session is told of a new session before its first packet.
	session(payload gkrp.Payload)
	close()
}

// openOutputs opens a stream's outputs when its first session is assigned, and
// tells them of later ones. An output that cannot be opened is reported, and the
// stream runs without it. The caller holds mu.
func (s *Service) openOutputs(st *stream, payload gkrp.Payload) {
	if st.outputs == nil {
		st.outputs = []output{}
		for _, o := range s.cfg.Outputs {
			if o.Stream != "" && o.Stream != st.id {
				continue
			}
			text := strings.ReplaceAll(o.URL, placeholder, string(st.id))
			opened, err := openOutput(st.id, text, payload)
			if err != nil {
				s.log.Error("output not opened", "stream", st.id, "output", text, "error", err)
				continue
			}
			st.outputs = append(st.outputs, opened)
		}
	}
	for _, o := range st.outputs {
		o.session(payload)
	}
}

func openOutput(id gk.StreamID, text string, payload gkrp.Payload) (output, error) {
	scheme, rest, err := splitURL(text)
	if err != nil {
		return nil, err
	}
	if err := needsTS(id, payload); err != nil && scheme != "rtp" {
		return nil, err
	}
	if scheme == "file" {
		return newFileOutput(rest)
	}
	addr, err := net.ResolveUDPAddr("udp", rest)
	if err != nil {
		return nil, err
	}
	to := netip.AddrPortFrom(addr.AddrPort().Addr().Unmap(), addr.AddrPort().Port())
	if scheme == "udp" {
		return newUDPOutput(to)
	}
	return newRTPOutput(to, string(id)+" "+text)
}

// needsTS explains why a stream cannot go where only MPEG-TS can.
func needsTS(id gk.StreamID, p gkrp.Payload) error {
	if p.Kind == gkrp.PayloadMP2T {
		return nil
	}
	return fmt.Errorf("stream %s carries %s in RTP, not MPEG-TS: only an rtp:// output can pass it on, or give the device an MPEG-TS source", id, encoding(p))
}

func encoding(p gkrp.Payload) string {
	if p.Encoding != "" {
		return p.Encoding
	}
	return fmt.Sprintf("payload type %d", p.Type)
}
