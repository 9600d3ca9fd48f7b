package app

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// notary signs heads as the key management service does.
type notary struct {
	key    ed25519.PrivateKey
	serial uint64
	last   bus.AuditHead
}

func newNotary(t *testing.T) *notary {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &notary{key: key}
}

func (k *notary) sign(_ context.Context, h bus.AuditHead) (bus.SignedAuditHead, error) {
	if bytes.Equal(h.Trail, k.last.Trail) && h.Lines < k.last.Lines {
		return bus.SignedAuditHead{}, bus.Refuse(bus.CodeConflict, "its end was cut off")
	}
	k.serial++
	k.last = h
	at := time.Now().UTC()
	return bus.SignedAuditHead{Serial: k.serial, At: at, Public: k.key.Public().(ed25519.PublicKey), Signature: ed25519.Sign(k.key, bus.AuditHeadBytes(h, k.serial, at))}, nil
}

// signedTrail writes a trail of lines, of which those at heads are signed.
func (k *notary) signedTrail(t *testing.T, lines int, heads ...int) AuditFiles {
	t.Helper()
	files := AuditFiles{}.In(t.TempDir())
	pem, err := kmsKeyPEM(k.key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.Key, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := openAudit(files.Trail, files.Heads, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.file.Close()
	signer := headSigner{trail: a, due: time.NewTimer(time.Hour)}
	for i := 1; i <= lines; i++ {
		if err := a.append(gk.Event{At: time.Unix(int64(i), 0), Kind: gk.EventGrantSent, Stream: gk.StreamID(fmt.Sprintf("cam-%02d", i))}); err != nil {
			t.Fatal(err)
		}
		for _, n := range heads {
			if n == i {
				head := bus.AuditHead{Trail: bytes.Clone(a.chain.First[:]), Lines: a.chain.Lines, Head: bytes.Clone(a.chain.Last[:])}
				rep, err := k.sign(t.Context(), head)
				if err := signer.take(signedHead{head, rep, err}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return files
}

func rewrite(t *testing.T, path string, change func(lines []string) []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := change(strings.SplitAfter(string(b), "\n"))
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyAudit(t *testing.T) {
	k := newNotary(t)
	files := k.signedTrail(t, 12, 3, 6, 10)
	rep, err := VerifyAudit(files)
	if err != nil || rep.Lines != 12 || rep.Heads != 3 || rep.Signed != 10 || rep.From.Unix() != 1 || rep.To.Unix() != 12 || rep.SignedAt.IsZero() {
		t.Errorf("%+v, %v", rep, err)
	}
	rewrite(t, files.Trail, func(l []string) []string { return append(l, `{"n":12,`) })
	if rep, err := VerifyAudit(files); err != nil || !rep.Partial || rep.Lines != 12 {
		t.Errorf("with a line being written: %+v, %v", rep, err)
	}
}

func TestVerifyAuditNamesTheFirstBadLine(t *testing.T) {
	k := newNotary(t)
	swap := func(old, with string, line int) func([]string) []string {
		return func(l []string) []string {
			if !strings.Contains(l[line-1], old) {
				t.Fatalf("line %d is %s", line, l[line-1])
			}
			l[line-1] = strings.Replace(l[line-1], old, with, 1)
			return l
		}
	}
	for _, c := range []struct {
		name   string
		heads  bool // of the heads, or of the trail
		change func(l []string) []string
		line   uint64 // 0: it holds
		words  string
	}{
		{"a byte of an event", false, swap("cam-05", "cam-15", 5), 5, "was changed"},
		{"a byte of the first event", false, swap("cam-01", "cam-11", 1), 1, "trail that was signed last"},
		{"a byte of a link", false, swap(`"prev":"`, `"prev":"f`, 5), 5, "was changed"},
		{"a byte of a number", false, swap(`"n":4`, `"n":9`, 5), 5, "lines are missing"},
		{"a byte that was a brace", false, swap(`{`, `[`, 5), 5, "no record"},
		{"a line break", false, func(l []string) []string { l[4] = strings.TrimSuffix(l[4], "\n") + " "; return l }, 5, "no record"},
		{"a signed last line", false, func(l []string) []string { return swap("cam-10", "cam-20", 10)(l)[:10] }, 10, "not the line that was signed"},
		{"a line that nothing covers yet", false, swap("cam-12", "cam-22", 12), 0, ""},
		{"the line before it", false, swap("cam-11", "cam-21", 11), 11, "was changed"},
		{"a line dropped", false, func(l []string) []string { return append(l[:4], l[5:]...) }, 5, "lines are missing"},
		{"a line doubled", false, func(l []string) []string { return append(l[:5:5], l[4:]...) }, 6, "once more"},
		{"two lines exchanged", false, func(l []string) []string { l[4], l[5] = l[5], l[4]; return l }, 5, "lines are missing"},
		{"the signed tail dropped", false, func(l []string) []string { return l[:8] }, 9, "the end is missing: 10 lines were signed"},
		{"everything dropped", false, func([]string) []string { return nil }, 1, "the end is missing"},
		{"the unsigned tail dropped", false, func(l []string) []string { return l[:10] }, 0, ""},
		{"the end written anew", false, func(l []string) []string { return rechain(t, l, 8) }, 10, "lines from 7 on were written anew"},
		{"the whole written anew", false, func(l []string) []string { return rechain(t, l, 1) }, 1, "trail that was signed last"},
		{"a signature", true, swap(`"lines":6`, `"lines":7`, 2), 2, "signature does not verify"},
		{"a head dropped", true, func(l []string) []string { return append(l[:1], l[2:]...) }, 2, "serial"},
		{"a head forged", true, func(l []string) []string {
			other := newNotary(t)
			files := other.signedTrail(t, 1, 1)
			b, _ := os.ReadFile(files.Heads)
			l[2] = string(b)
			return l
		}, 3, "another key"},
		{"a head that is none", true, func(l []string) []string { l[0] = "x\n"; return l }, 1, "no signed head"},
	} {
		files := k.signedTrail(t, 12, 3, 6, 10)
		path := files.Trail
		if c.heads {
			path = files.Heads
		}
		rewrite(t, path, c.change)
		_, err := VerifyAudit(files)
		var fault *AuditFault
		switch {
		case c.line == 0 && err == nil:
		case !errors.As(err, &fault) || fault.Line != c.line || fault.File != path || !strings.Contains(fault.Text, c.words):
			t.Errorf("%s: %v, want line %d, %q", c.name, err, c.line, c.words)
		}
		k.last = bus.AuditHead{}
		k.serial = 0
	}
}

// rechain changes a line and makes the chain hold again behind it.
func rechain(t *testing.T, lines []string, from int) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "forged.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(lines[:from-1], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := openAudit(path, path+".heads", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.file.Close()
	for range len(lines) - from {
		if err := a.append(gk.Event{Kind: gk.EventGrantSent, Stream: "forged"}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return []string{string(b)}
}

// Every byte of a trail counts, up to the last one that was signed.
func TestVerifyAuditSeesEveryFlippedByte(t *testing.T) {
	k := newNotary(t)
	files := k.signedTrail(t, 4, 2, 4)
	good, err := os.ReadFile(files.Trail)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(files.Trail, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := VerifyAudit(files)
		var fault *AuditFault
		line := uint64(bytes.Count(good[:i], []byte("\n")) + 1)
		if !errors.As(err, &fault) || fault.Line != line {
			t.Errorf("byte %d, of line %d: %v", i, line, err)
		}
	}
}

func TestHeadsAreSignedEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newNotary(t)
		files := k.signedTrail(t, 2)
		memory := bus.NewMemory()
		defer memory.Close()
		run := func(then func()) {
			t.Helper()
			a, err := openAudit(files.Trail, files.Heads, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			if err := a.Listen(ctx, memory.Conn()); err != nil {
				t.Fatal(err)
			}
			go func() { done <- a.Run(ctx, memory.Conn()) }()
			then()
			synctest.Wait()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		event := func() {
			if err := bus.Events.Tell(memory.Conn(), gk.Event{Kind: gk.EventGrantSent, Stream: "a"}); err != nil {
				t.Fatal(err)
			}
		}
		check := func(lines, signed uint64, heads int) {
			t.Helper()
			synctest.Wait()
			rep, err := VerifyAudit(files)
			if err != nil || rep.Lines != lines || rep.Signed != signed || rep.Heads != heads {
				t.Errorf("%+v, %v, want %d lines, %d signed by %d heads", rep, err, lines, signed, heads)
			}
		}
		run(func() {
			time.Sleep(10 * time.Second) // nobody signs yet
			if _, err := bus.KMSSignHead.Serve(memory.Conn(), k.sign); err != nil {
				t.Fatal(err)
			}
			time.Sleep(headRetry)
			check(2, 2, 1)
			event()
			check(3, 2, 1)
			time.Sleep(headEvery)
			check(3, 3, 2)
			time.Sleep(10 * headEvery) // nothing to sign
			check(3, 3, 2)
			event()
		})
		check(4, 3, 2)
		run(func() {
			time.Sleep(2 * headFirst)
			check(4, 4, 3)
		})

		// A trail that was cut while the service was down is noticed at its next
		// signature, kept, and followed by one that says so.
		rewrite(t, files.Trail, func(l []string) []string { return l[:2] })
		if _, err := VerifyAudit(files); err == nil {
			t.Error("a trail that was cut verifies")
		}
		run(func() {
			time.Sleep(5 * headFirst)
			check(1, 1, 1)
		})
		b, err := os.ReadFile(files.Trail)
		if err != nil || !strings.Contains(string(b), `"audit-broken"`) || !strings.Contains(string(b), "cut off") {
			t.Errorf("%s, %v", b, err)
		}
		kept, _ := filepath.Glob(files.Trail + ".broken-*")
		if len(kept) != 1 {
			t.Errorf("kept %v", kept)
		}
		if sum := sha256.Sum256(bytes.TrimSuffix(b, []byte("\n"))); !bytes.Equal(k.last.Head, sum[:]) {
			t.Error("the new trail's head is not the one that was signed")
		}
	})
}
