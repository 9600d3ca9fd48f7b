package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/audit"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

const (
	auditSync   = time.Second // at most so much of the trail is lost with the machine
	auditBuffer = 4096        // events that the disk may lag behind

	auditQuiet = 50 * time.Millisecond // at the end, so long a silence means that all was heard
)

// auditTrail appends events to a file as a chain of JSON lines, and has its head
// signed by the key management service: a chain alone cannot show that its end
// was cut off.
type auditTrail struct {
	path   string
	heads  string // file of signed heads
	file   *os.File
	chain  audit.Chain
	events chan gk.Event
	sub    bus.Subscription
	log    *slog.Logger
	told   *slog.Logger // what is heard goes there as well; nil: nowhere
}

// openAudit checks the trail at path and makes ready to continue it. A line cut
// short by a crash is taken off. A trail whose chain does not hold is kept
// beside under another name, and a new one begins.
//
// heads is the file that signed heads are appended to.
func openAudit(path, heads string, log *slog.Logger) (*auditTrail, error) {
	a := &auditTrail{path: path, heads: heads, events: make(chan gk.Event, auditBuffer), log: log}
	if err := a.open(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *auditTrail) open() (err error) {
	if a.file, err = os.OpenFile(a.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	end, err := a.chain.Replay(a.file)
	if err != nil {
		return a.beginAnew(err)
	}
	if err := errors.Join(a.file.Truncate(end), seek(a.file, end)); err != nil {
		a.file.Close()
		return fmt.Errorf("audit trail: %w", err)
	}
	return nil
}

// beginAnew keeps a trail that does not hold as evidence, and begins another,
// whose first line tells of it.
func (a *auditTrail) beginAnew(why error) (err error) {
	aside := fmt.Sprintf("%s.broken-%s", a.path, time.Now().UTC().Format("20060102T150405.000"))
	a.log.Error("audit trail does not hold: it is kept as evidence and a new one begins", "error", why, "kept", aside)
	a.file.Close()
	if err := os.Rename(a.path, aside); err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	if a.file, err = os.OpenFile(a.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	a.chain = audit.Chain{}
	return a.append(gk.Event{
		At: time.Now(), Kind: gk.EventAuditBroken, Service: "audit", Detail: map[string]string{"why": why.Error(), "kept": filepath.Base(aside)},
	})
}

func seek(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

func (a *auditTrail) append(e gk.Event) error {
	line, err := a.chain.Line(e)
	if err != nil {
		return err
	}
	if _, err := a.file.Write(append(line, '\n')); err != nil {
		return err
	}
	a.chain.Follow(line)
	return nil
}

// hear takes an event from the bus. When the disk is far behind, the event is
// counted as missing rather than waited for.
func (a *auditTrail) hear(e gk.Event) {
	if a.told != nil {
		logEvent(a.told, e)
	}
	select {
	case a.events <- e:
	default:
		a.log.Error("audit trail is behind: an event is missing from it", "kind", e.Kind)
	}
}

// Listen makes the trail hear everything that is announced from now on.
func (a *auditTrail) Listen(ctx context.Context, conn bus.Conn) (err error) {
	if a.sub, err = bus.Events.Hear(conn, a.hear); err == nil {
		err = conn.Flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	return nil
}

// Run writes what is heard until ctx ends and everything heard is written.
func (a *auditTrail) Run(ctx context.Context, conn bus.Conn) error {
	defer func() { a.file.Close() }() // whichever it is by then
	defer a.sub.Close()
	sync := time.NewTicker(auditSync)
	defer sync.Stop()
	signer := newHeadSigner(a, conn)
	defer signer.stop()
	dirty := false
	for {
		select {
		case <-signer.due.C:
			if err := a.file.Sync(); err != nil {
				return fmt.Errorf("audit trail: %w", err)
			}
			signer.ask(ctx)
		case s := <-signer.answers:
			if err := signer.take(s); err != nil {
				return fmt.Errorf("audit trail: %w", err)
			}
			dirty = true
		case e := <-a.events:
			if err := a.append(e); err != nil {
				return fmt.Errorf("audit trail: %w", err)
			}
			dirty = true
		case <-sync.C:
			if dirty {
				if err := a.file.Sync(); err != nil {
					return fmt.Errorf("audit trail: %w", err)
				}
				dirty = false
			}
		case <-ctx.Done():
			return a.finish(conn)
		}
	}
}

// finish writes what was announced before the end.
func (a *auditTrail) finish(conn bus.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), auditSync)
	defer cancel()
	_ = conn.Flush(ctx) // a lost bus has nothing more to say
	for {
		select {
		case e := <-a.events:
			if err := a.append(e); err != nil {
				return fmt.Errorf("audit trail: %w", err)
			}
		case <-time.After(auditQuiet):
			return a.file.Sync()
		}
	}
}
