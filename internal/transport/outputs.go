package transport

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

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

// openOutputs opens those of a stream's outputs that are not open: all of them when
// its first session is assigned, and later those that failed. What they need, a name
// service or a disk, may not answer, and packets wait for the lock; so it is not held
// meanwhile. An output that cannot be opened is reported, and the stream runs without
// it until the next session.
func (s *Service) openOutputs(ctx context.Context, id gk.StreamID, term uint64, payload gkrp.Payload) error {
	s.mu.Lock()
	st, err := s.obey(id, term)
	var closed []int // by the place in the configuration
	for i := 0; err == nil && i < len(s.cfg.Outputs); i++ {
		if to := s.cfg.Outputs[i].Stream; (to == "" || to == id) && !st.taken[i] {
			closed = append(closed, i)
		}
	}
	if len(closed) > 0 && st.taken == nil {
		st.taken = map[int]bool{}
	}
	for _, i := range closed {
		st.taken[i] = true
	}
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	for _, i := range closed {
		text := strings.ReplaceAll(s.cfg.Outputs[i].URL, placeholder, string(id))
		o, err := openOutput(ctx, id, text, payload)
		if err != nil {
			s.log.Error("output not opened", "stream", id, "output", text, "error", err)
		}
		s.mu.Lock()
		switch {
		case err != nil:
			delete(st.taken, i)
		case s.ended:
			o.close()
		default:
			o.session(payload)
			st.outputs = append(st.outputs, o)
		}
		s.mu.Unlock()
	}
	return err
}

// openTimeout bounds the search for an output's address: whoever orders an assignment
// waits for it.
const openTimeout = 2 * time.Second

// tellOutputs tells a stream's outputs what the session carries that follows. The
// caller holds mu.
func (st *stream) tellOutputs(payload gkrp.Payload) {
	for _, o := range st.outputs {
		o.session(payload)
	}
}

func openOutput(ctx context.Context, id gk.StreamID, text string, payload gkrp.Payload) (output, error) {
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
	to, err := lookUp(ctx, rest)
	if err != nil {
		return nil, err
	}
	if scheme == "udp" {
		return newUDPOutput(to)
	}
	return newRTPOutput(to, string(id)+" "+text)
}

// lookUp finds the address of host:port, of several one of IPv4.
func lookUp(ctx context.Context, address string) (netip.AddrPort, error) {
	var none netip.AddrPort
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return none, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return none, err
	}
	if host == "" {
		host = "127.0.0.1"
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return none, err
	}
	to := all[0].Unmap()
	for _, ip := range all {
		if ip = ip.Unmap(); ip.Is4() {
			to = ip
			break
		}
	}
	return netip.AddrPortFrom(to, uint16(port)), nil
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
