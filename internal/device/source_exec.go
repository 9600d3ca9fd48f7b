package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const (
	restartFirst = time.Second // before the first restart of a failed command; doubles
	restartMost  = 30 * time.Second
	restartCalm  = time.Minute     // a command that ran this long starts at restartFirst again
	termGrace    = 2 * time.Second // between SIGTERM and SIGKILL
	stderrKept   = 2 << 10
)

// execSource reads a transport stream from a command's standard output as it
// comes: the command keeps the pace. A command that fails after it has
// delivered is started again; one that ends well ends the source.
type execSource struct {
	command string
	name    string // of the command, for people: it may hold a password, this does not
	hide    func(text string) string
	log     *slog.Logger

	run *running // nil between runs

	align    media.TSAligner
	clock    media.PCRClock
	pending  []byte // read by Probe
	head     []byte
	buf      []byte // what the units of the last Read point to
	skipped  atomic.Uint64
	seen     bool // the command has delivered since the source was opened
	note     string
	since    time.Time
	wait     time.Duration
	beginAt  time.Time
	finished bool
}

type running struct {
	cmd    *exec.Cmd
	out    *pump
	stderr tail
}

func newExecSource(command string, log *slog.Logger) (Source, error) {
	if strings.TrimSpace(command) == "" {
		return nil, errors.New("source exec: names no command: write exec:'ffmpeg … -f mpegts -'")
	}
	return &execSource{
		command: command, name: strings.Fields(command)[0], hide: hideCredentials, log: log, wait: restartFirst,
	}, nil
}

// newHelperSource receives what needs a program of its own.
func newHelperSource(scheme, spec string, log *slog.Logger) (Source, error) {
	var program, debian string
	var args []string
	switch scheme {
	case "srt":
		program, debian, args = "srt-live-transmit", "srt-tools", []string{"-q", spec, "file://con"}
	case "rist":
		program, debian, args = "ristreceiver", "rist-tools", []string{"-i", spec, "-o", "-"}
	default:
		program, debian = "ffmpeg", "ffmpeg"
		args = []string{"-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp", "-i", spec, "-c", "copy", "-f", "mpegts", "-"}
	}
	if u, err := url.Parse(spec); err != nil || u.Host == "" {
		return nil, fmt.Errorf("source %s: names no host: write %s://HOST:PORT", scheme, scheme)
	}
	if _, err := exec.LookPath(program); err != nil {
		return nil, fmt.Errorf("source %s:// needs %s, which is not installed: apt install %s", scheme, program, debian)
	}
	words := []string{program}
	for _, a := range args {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	s, err := newExecSource("exec "+strings.Join(words, " "), log)
	if x, ok := s.(*execSource); ok {
		x.name = program
		x.hide = func(text string) string { return hideCredentials(strings.ReplaceAll(text, spec, scheme+"://…")) }
	}
	return s, err
}

// credentials are what a URL may have of them: before the host, and among the
// parameters of SRT and RIST.
var credentials = regexp.MustCompile(`://[^/\s'"@]*@|(?i:(passphrase|password|passwd|pass|secret|token|key|streamid|username)=)[^&\s'"]*`)

// hideCredentials keeps passwords out of what a helper said, and so of logs and errors.
func hideCredentials(text string) string {
	return credentials.ReplaceAllStringFunc(text, func(found string) string {
		if name, _, ok := strings.Cut(found, "="); ok && !strings.HasPrefix(found, "://") {
			return name + "=…"
		}
		return "://…@"
	})
}

func (s *execSource) start() error {
	r := &running{cmd: exec.Command("/bin/sh", "-c", s.command)}
	// A group of its own, so that stopping it stops its children too, and an
	// interrupt at the terminal reaches us first.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Stderr = &r.stderr
	r.cmd.WaitDelay = termGrace
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("source exec: %w", err)
	}
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("source exec: cannot start %q: %w", s.name, err)
	}
	r.out = newPump(out, nil)
	s.run = r
	s.since = time.Now()
	return nil
}

// next gives the next bytes of the command, starting it again where that helps.
func (s *execSource) next(ctx context.Context) ([]byte, error) {
	for {
		if s.finished {
			return nil, io.EOF
		}
		if s.run == nil {
			if err := s.start(); err != nil {
				return nil, err
			}
		}
		b, err := s.run.out.next(ctx)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if err := s.ended(ctx); err != nil {
			return nil, err
		}
	}
}

// ended decides what follows the command's end; nil means to start it again.
func (s *execSource) ended(ctx context.Context) error {
	r := s.run
	s.run = nil
	// A command may close its output and stay: its end is not waited for without end.
	stop := context.AfterFunc(ctx, r.kill)
	err := r.cmd.Wait()
	stop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	said := s.hide(r.stderr.String())
	stderr := said
	if said != "" {
		said = "; it said: " + said
	}
	switch {
	case err == nil && s.seen:
		s.finished = true
		return io.EOF
	case err == nil:
		return fmt.Errorf("source exec: %q ended without writing MPEG-TS to its standard output%s", s.name, said)
	case !s.seen:
		return fmt.Errorf("source exec: %q failed (%w) before it wrote MPEG-TS to its standard output%s", s.name, err, said)
	}
	if time.Since(s.since) >= restartCalm {
		s.wait = restartFirst
	}
	s.log.Warn("the source's command failed and is started again", "command", s.name, "err", err, "in", s.wait, "stderr", stderr)
	t := time.NewTimer(s.wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.wait = min(2*s.wait, restartMost)
	s.align.Flush(func([]byte) {})
	s.note = "the source's command was restarted"
	return nil
}

// Probe implements [Source]: it waits for the command's first packet.
func (s *execSource) Probe(ctx context.Context) (gkrp.Payload, error) {
	total := 0
	for len(s.pending) == 0 {
		b, err := s.next(ctx)
		if err != nil {
			if total > 0 && ctx.Err() == nil {
				return gkrp.Payload{}, s.notTS(err)
			}
			return gkrp.Payload{}, err
		}
		total += len(b)
		if want := sniffHead - len(s.head); want > 0 {
			s.head = append(s.head, b[:min(want, len(b))]...)
		}
		s.push(b, func(ts []byte) { s.pending = append(s.pending, ts...) })
		if len(s.pending) == 0 && total >= sniffLimit {
			return gkrp.Payload{}, s.notTS(nil)
		}
	}
	s.seen = true
	return payloadMP2T, nil
}

func (s *execSource) notTS(end error) error {
	found, mend := describeInput(s.head)
	err := fmt.Errorf("source exec: %q does not write MPEG-TS: found %s; %s", s.name, found, mend)
	if end != nil && !errors.Is(end, io.EOF) {
		err = fmt.Errorf("%w (%w)", err, end)
	}
	return err
}

func (s *execSource) push(b []byte, emit func(ts []byte)) {
	s.align.Push(b, emit)
	s.run.out.release(b)
	s.skipped.Store(s.align.Skipped())
}

// Read implements [Source].
func (s *execSource) Read(ctx context.Context, b *Batch) error {
	b.reset()
	if !s.seen {
		if _, err := s.Probe(ctx); err != nil {
			return err
		}
	}
	s.buf = append(s.buf[:0], s.pending...)
	s.pending = s.pending[:0]
	for len(s.buf) == 0 {
		chunk, err := s.next(ctx)
		if err != nil {
			return err
		}
		s.push(chunk, func(ts []byte) { s.buf = append(s.buf, ts...) })
	}
	if s.note != "" {
		b.Break, s.note = s.note, ""
		s.clock = media.PCRClock{}
	}
	now := time.Now()
	if s.beginAt.IsZero() {
		s.beginAt = now
	}
	appendTS(b, s.buf, clock90k(now.Sub(s.beginAt)))
	if jumped(&s.clock, s.buf) && b.Break == "" {
		b.Break = "the clock of the transport stream jumped"
	}
	return nil
}

// Dropped implements [Source], in bytes.
func (s *execSource) Dropped() uint64 { return s.skipped.Load() }

// Close implements [Source]: it asks the command to end, and then makes it.
func (s *execSource) Close() error {
	r := s.run
	s.run = nil
	s.finished = true
	if r == nil {
		return nil
	}
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM)
	kill := time.AfterFunc(termGrace, r.kill)
	defer kill.Stop()
	_ = r.out.close()
	_ = r.cmd.Wait() // we ended it: how it ended says nothing
	return nil
}

// kill ends the command and its children at once.
func (r *running) kill() { _ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) }

// appendTS cuts whole transport stream packets into units. b must be empty.
func appendTS(b *Batch, ts []byte, timestamp uint32) {
	const full = media.TSPerRTP * media.TSPacketSize
	for len(ts) > 0 {
		n := min(full, len(ts))
		b.Units = append(b.Units, Unit{Payload: ts[:n:n], Timestamp: timestamp, Type: media.PayloadTypeTS})
		ts = ts[n:]
	}
}

// jumped follows the clock through ts and tells whether it jumped on the way.
func jumped(c *media.PCRClock, ts []byte) bool {
	jump := false
	for ; len(ts) >= media.TSPacketSize; ts = ts[media.TSPacketSize:] {
		if tick, ok := c.Next(ts); ok && tick.Jump {
			jump = true
		}
	}
	return jump
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - stderrKept; over > 0 {
		t.b = t.b[:copy(t.b, t.b[over:])]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.ToValidUTF8(bytes.TrimSpace(t.b), []byte("?")))
}
