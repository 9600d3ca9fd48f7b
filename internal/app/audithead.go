package app

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

const (
	headFirst   = time.Second // after the start, so that what was written before is covered soon
	headEvery   = time.Minute
	headRetry   = 5 * time.Second
	headTimeout = 4 * time.Second
)

// hexBytes are bytes that stand as hexadecimal in JSON.
type hexBytes []byte

// MarshalText implements [encoding.TextMarshaler].
func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// headLine is one line of the file of signed heads. The signature is Ed25519 over
// [bus.AuditHeadBytes].
type headLine struct {
	Serial    uint64    `json:"serial"`
	At        time.Time `json:"at"`
	Trail     hexBytes  `json:"trail"` // SHA-256 of the trail's first line
	Lines     uint64    `json:"lines"`
	Head      hexBytes  `json:"head"` // SHA-256 of its last line then
	Key       hexBytes  `json:"key"`
	Signature hexBytes  `json:"sig"`
}

func (l headLine) head() bus.AuditHead {
	return bus.AuditHead{Trail: l.Trail, Lines: l.Lines, Head: l.Head}
}

// headSigner has a trail's head signed every minute in which it moved. It belongs
// to the goroutine that writes the trail; only the question waits elsewhere.
type headSigner struct {
	trail   *auditTrail
	conn    bus.Conn
	due     *time.Timer
	answers chan signedHead
	signed  uint64 // lines under the last signature
}

type signedHead struct {
	head bus.AuditHead
	rep  bus.SignedAuditHead
	err  error
}

func newHeadSigner(a *auditTrail, conn bus.Conn) *headSigner {
	return &headSigner{trail: a, conn: conn, due: time.NewTimer(headFirst), answers: make(chan signedHead, 1)}
}

func (h *headSigner) stop() { h.due.Stop() }

// ask asks for a signature of the present head, which the disk must have.
func (h *headSigner) ask(ctx context.Context) {
	a := h.trail
	if a.chain.Lines == 0 || a.chain.Lines == h.signed {
		h.due.Reset(headEvery)
		return
	}
	head := bus.AuditHead{Trail: bytes.Clone(a.chain.First[:]), Lines: a.chain.Lines, Head: bytes.Clone(a.chain.Last[:])}
	go func() {
		ctx, cancel := context.WithTimeout(ctx, headTimeout)
		defer cancel()
		rep, err := bus.KMSSignHead.Do(ctx, h.conn, head)
		h.answers <- signedHead{head, rep, err}
	}()
}

// take writes the signature down. A trail that the key management service refuses
// because it knows a longer or another one is kept aside.
func (h *headSigner) take(s signedHead) error {
	switch {
	case s.err == nil:
		h.due.Reset(headEvery)
		h.signed = s.head.Lines
		return appendHead(h.trail.heads, headLine{
			Serial: s.rep.Serial, At: s.rep.At, Trail: s.head.Trail, Lines: s.head.Lines, Head: s.head.Head, Key: s.rep.Public, Signature: s.rep.Signature,
		})
	case bus.CodeOf(s.err) == bus.CodeConflict:
		h.due.Reset(headFirst)
		return h.trail.beginAnew(s.err)
	}
	h.due.Reset(headRetry)
	if !errors.Is(s.err, bus.ErrNoResponder) && !errors.Is(s.err, context.Canceled) {
		h.trail.log.Warn("the audit trail's head was not signed; trying again", "error", s.err)
	}
	return nil
}

// appendHead writes one line and makes sure that the disk has it. The file is
// opened anew each time, so that it may be moved away.
func appendHead(path string, l headLine) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("signed heads: %w", err)
	}
	defer f.Close()
	// A line that a crash cut short ends here, and verification says so.
	if end, err := f.Seek(0, 2); err == nil && end > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			b = append([]byte{'\n'}, b...)
		}
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("signed heads: %w", err)
	}
	return f.Sync()
}
