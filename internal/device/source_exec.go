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
	program
	as  string // the owner's name for how it runs: its regime
	log *slog.Logger

	run *running // nil between runs

	mu      sync.Mutex
	ordered *order        // what shall run from now on; nil: what runs
	now     *running      // run, for who orders
	poke    chan struct{} // something was ordered

	align    media.TSAligner
	clock    media.PCRClock
	pending  []byte // read by Probe
	head     []byte
	buf      []byte // what the units of the last Read point to
	skipped  atomic.Uint64
	seen     bool // the command has delivered since the source was opened
	young    bool // one that was ordered has not
	note     string
	why      gkrp.Why // of note
	since    time.Time
	wait     time.Duration
	beginAt  time.Time
	finished bool
}

type running struct {
	cmd    *exec.Cmd
	out    *pump
	stderr tail
	late   *time.Timer // kills what does not end when it is asked to; touched under mu
}

// program is a command and what may be said of it.
type program struct {
	command  string
	name     string // for people: the command may hold a password, this does not
	hide     func(text string) string
	receives bool // it is no encoder, but what receives from one
}

// order is a program that takes another's place.
type order struct {
	program
	regime string
}

func newExecSource(p program, log *slog.Logger) *execSource {
	return &execSource{program: p, log: log, wait: restartFirst, poke: make(chan struct{}, 1)}
}

// programOf finds the program that a source needs; false where it needs none.
func programOf(spec string) (p program, ok bool, err error) {
	scheme, rest, _ := strings.Cut(spec, ":")
	switch scheme {
	case "exec":
		if strings.TrimSpace(rest) == "" {
			return p, true, errors.New("source exec: names no command: write exec:'ffmpeg … -f mpegts -'")
		}
		return program{command: rest, name: strings.Fields(rest)[0], hide: hideCredentials}, true, nil
	case "srt", "rtsp", "rtsps", "rist":
		p, err = helper(scheme, spec)
		return p, true, err
	}
	return p, false, nil
}

// helper is the program that receives what needs one of its own.
func helper(scheme, spec string) (p program, err error) {
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
		return p, fmt.Errorf("source %s: names no host: write %s://HOST:PORT", scheme, scheme)
	}
	if _, err := exec.LookPath(program); err != nil {
		return p, fmt.Errorf("source %s:// needs %s, which is not installed: apt install %s", scheme, program, debian)
	}
	words := []string{program}
	for _, a := range args {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	p.command, p.name, p.receives = "exec "+strings.Join(words, " "), program, true
	p.hide = func(text string) string { return hideCredentials(strings.ReplaceAll(text, spec, scheme+"://…")) }
	return p, nil
}

// regime implements [runner].
func (s *execSource) regime() string { return s.as }

// order has another program run from now on. Unlike the rest of a source, it may be
// called from any goroutine. What runs is asked to end, and then made to.
func (s *execSource) order(o order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ordered = &o
	if r := s.now; r != nil && r.late == nil {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM)
		r.late = time.AfterFunc(termGrace, r.kill)
	}
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// forget leaves a command alone that has ended, and gives what was ordered meanwhile.
func (s *execSource) forget() *order {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.now; r != nil && r.late != nil {
		r.late.Stop()
	}
	o := s.ordered
	s.now, s.ordered = nil, nil
	return o
}

// taken takes up what was ordered, and is true where something was.
func (s *execSource) taken() bool {
	o := s.forget()
	if o == nil {
		return false
	}
	s.log.Info("the source's command is changed by its owner", "command", o.name, "before", s.name, "regime", o.regime)
	s.program, s.as = o.program, o.regime
	s.wait, s.young = restartFirst, true
	s.begins("the source's command was changed", gkrp.WhyChanged)
	return true
}

// begins notes that what comes next is from a command that was begun anew.
func (s *execSource) begins(note string, why gkrp.Why) {
	s.align.Flush(func([]byte) {})
	if s.note == "" || why == gkrp.WhyChanged {
		s.note, s.why = note, why
	}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = r
	if s.ordered != nil { // meanwhile
		r.late = time.AfterFunc(0, r.kill)
	}
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
	if s.taken() {
		return ctx.Err()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	said := s.hide(r.stderr.String())
	stderr := said
	if said != "" {
		said = "; it said: " + said
	}
	switch {
	case err == nil && s.seen && !s.young:
		s.finished = true
		return io.EOF
	case err == nil && !s.seen:
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
	for waiting := true; waiting; {
		select {
		case <-t.C:
			waiting = false
		case <-s.poke: // perhaps for what was taken already
			if s.taken() {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.wait = min(2*s.wait, restartMost)
	why := gkrp.WhyFailed
	if s.receives {
		why = gkrp.WhyLost
	}
	s.begins("the source's command was restarted", why)
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
	s.young = false
	if s.note != "" {
		b.Break, b.Begun, b.Regime, s.note = s.note, s.why, s.as, ""
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
	defer s.forget()
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
