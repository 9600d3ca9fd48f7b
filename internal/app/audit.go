package app

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

const (
	auditSync   = time.Second // at most so much of the trail is lost with the machine
	auditBuffer = 4096        // events that the disk may lag behind

	auditQuiet = 50 * time.Millisecond // at the end, so long a silence means that all was heard
)

// auditRecord is one line of the audit trail. Each names the SHA-256 of the line
// before it, so that a line cannot be changed, added or taken out in the middle
// without a trace.
type auditRecord struct {
	Number   uint64   `json:"n"`
	Previous string   `json:"prev"` // hexadecimal; of the first line: of nothing
	Event    gk.Event `json:"event"`
}

// auditTrail appends events to a file as a chain of JSON lines.
type auditTrail struct {
	file   *os.File
	next   uint64
	hash   [sha256.Size]byte
	events chan gk.Event
	sub    bus.Subscription
	log    *slog.Logger
}

// openAudit checks the trail at path and makes ready to continue it. A line cut
// short by a crash is taken off. A trail whose chain does not hold is kept
// beside under another name, and a new one begins.
func openAudit(path string, log *slog.Logger) (*auditTrail, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	a := &auditTrail{file: file, events: make(chan gk.Event, auditBuffer), log: log}
	end, err := a.replay(file)
	if err != nil {
		aside := fmt.Sprintf("%s.broken-%s", path, time.Now().UTC().Format("20060102T150405.000"))
		log.Error("audit trail does not hold: it is kept as evidence and a new one begins", "error", err, "kept", aside)
		file.Close()
		if err := os.Rename(path, aside); err != nil {
			return nil, fmt.Errorf("audit trail: %w", err)
		}
		return openAudit(path, log)
	}
	if err := errors.Join(file.Truncate(end), seek(file, end)); err != nil {
		file.Close()
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	return a, nil
}

func seek(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

// replay follows the chain and gives the offset behind its last whole line.
func (a *auditTrail) replay(r io.Reader) (end int64, err error) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		end += int64(len(line))
		line = bytes.TrimSuffix(line, []byte("\n"))
		var rec auditRecord
		if err := json.Unmarshal(line, &rec); err != nil {
			return end, fmt.Errorf("line %d: %w", a.next+1, err)
		}
		if rec.Number != a.next || rec.Previous != a.head() {
			return end, fmt.Errorf("line %d does not follow the line before it", a.next+1)
		}
		a.hash = sha256.Sum256(line)
		a.next++
	}
}

func (a *auditTrail) head() string {
	if a.next == 0 {
		empty := sha256.Sum256(nil)
		return hex.EncodeToString(empty[:])
	}
	return hex.EncodeToString(a.hash[:])
}

func (a *auditTrail) append(e gk.Event) error {
	line, err := json.Marshal(auditRecord{Number: a.next, Previous: a.head(), Event: e})
	if err != nil {
		return err
	}
	if _, err := a.file.Write(append(line, '\n')); err != nil {
		return err
	}
	a.hash = sha256.Sum256(line)
	a.next++
	return nil
}

// hear takes an event from the bus. When the disk is far behind, the event is
// counted as missing rather than waited for.
func (a *auditTrail) hear(e gk.Event) {
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
	defer a.file.Close()
	defer a.sub.Close()
	sync := time.NewTicker(auditSync)
	defer sync.Stop()
	dirty := false
	for {
		select {
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
