package keyring

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	gaitkeeper "github.com/gaitkeeper/gaitkeeper"
)

func TestMediaKeyBytes(t *testing.T) {
	raw := pattern(MediaKeySize)
	k, err := MediaKeyFromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	keep := bytes.Clone(raw)
	clear(raw)
	k.Expose(func(key, salt []byte) {
		if !bytes.Equal(key, keep[:32]) || !bytes.Equal(salt, keep[32:]) {
			t.Errorf("got %x %x", key, salt)
		}
		if cap(key) != 32 || cap(salt) != 12 {
			t.Errorf("capacities %d %d reach beyond the part", cap(key), cap(salt))
		}
	})
	for _, n := range []int{0, 43, 45} {
		if _, err := MediaKeyFromBytes(make([]byte, n)); err == nil {
			t.Errorf("%d bytes accepted", n)
		}
	}
}

func TestNewMediaKey(t *testing.T) {
	a, err := NewMediaKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewMediaKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Equal(b) || a.IsZero() {
		t.Error("keys are not fresh")
	}
	if k, err := NewMediaKey(iotest.ErrReader(errors.New("dry"))); err == nil || !k.IsZero() {
		t.Errorf("a failing source gave %v, %v", k.IsZero(), err)
	}
	if _, err := NewMediaKey(bytes.NewReader(make([]byte, 43))); err == nil {
		t.Error("a short source gave a key")
	}
}

func TestWipeReachesEveryCopy(t *testing.T) {
	k, _ := MediaKeyFromBytes(pattern(MediaKeySize))
	alias := k.m.bytes()
	c := k
	before := k.Confirm("s", gaitkeeper.SessionID{1}, 1, "r")
	c.Wipe()
	if !k.IsZero() || !bytes.Equal(alias, make([]byte, MediaKeySize)) {
		t.Error("the key is still in memory")
	}
	k.Expose(func(key, salt []byte) {
		if key != nil || salt != nil {
			t.Error("a wiped key has bytes")
		}
	})
	one, two := k.Confirm("s", gaitkeeper.SessionID{1}, 1, "r"), MediaKey{}.Confirm("s", gaitkeeper.SessionID{1}, 1, "r")
	if one == before || one == two || one == ([32]byte{}) {
		t.Error("a wiped key confirms something predictable")
	}
	k.Wipe()
	MediaKey{}.Wipe()
	if !(MediaKey{}).IsZero() || (MediaKey{}).Equal(k) {
		t.Error("zero value")
	}

	s := NewSecret(pattern(5))
	alias = s.m.bytes()
	s.Wipe()
	if !s.IsZero() || !bytes.Equal(alias, make([]byte, 5)) {
		t.Error("the secret is still in memory")
	}
}

func TestDroppedKeyIsWiped(t *testing.T) {
	alias := func() []byte {
		k, _ := MediaKeyFromBytes(pattern(MediaKeySize))
		return k.m.bytes()
	}()
	// Cleanups run in their own goroutine after a collection; each turn gives
	// it another chance, and only a lost cleanup uses all of them up.
	for range 1000 {
		runtime.GC()
		runtime.Gosched()
		if wiped(alias) {
			return
		}
	}
	t.Error("a dropped key stayed in memory")
}

//go:norace
func wiped(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

func TestSecret(t *testing.T) {
	s, err := RandomSecret(nil, 16)
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	s.Expose(func(v []byte) { b = bytes.Clone(v) })
	if len(b) != 16 || !s.Equal(NewSecret(b)) || s.Equal(NewSecret(b[:15])) || s.Equal(Secret{}) {
		t.Error("secrets compare wrongly")
	}
}

func TestWipeWaitsForExpose(t *testing.T) {
	k, _ := MediaKeyFromBytes(pattern(MediaKeySize))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			k.Expose(func(key, _ []byte) {
				if key != nil && key[0] != 0xA1 {
					t.Error("bytes were wiped under Expose")
				}
			})
		})
	}
	wg.Go(k.Wipe)
	wg.Wait()
}

// The expected value was computed apart, with Python's hmac:
// HMAC-SHA256(key‖salt, info‖0x01).
func TestConfirmVector(t *testing.T) {
	k, _ := MediaKeyFromBytes(pattern(MediaKeySize))
	session := gaitkeeper.SessionID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	got := k.Confirm("cam-1", session, 7, "cam-1")
	const want = "df4597307926fd5893d9d288fb79c6e602ef4fd9f83be425a046eaf3bf6933f7"
	if hex.EncodeToString(got[:]) != want {
		t.Errorf("got %x, want %s", got, want)
	}
	for name, other := range map[string][32]byte{
		"stream":   k.Confirm("cam-2", session, 7, "cam-1"),
		"session":  k.Confirm("cam-1", gaitkeeper.SessionID{}, 7, "cam-1"),
		"epoch":    k.Confirm("cam-1", session, 8, "cam-1"),
		"receiver": k.Confirm("cam-1", session, 7, "cam-2"),
	} {
		if other == got {
			t.Errorf("%s is not bound", name)
		}
	}
}

func TestSealOpen(t *testing.T) {
	for _, suite := range []uint16{SuiteMLKEM768X25519, SuiteX25519} {
		r, err := GenerateReceiverKey(suite)
		if err != nil {
			t.Fatal(err)
		}
		k, _ := NewMediaKey(nil)
		sealed, err := SealMediaKey(suite, r.Public(), []byte("context"), k)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("suite %d: public %d bytes, sealed %d bytes", suite, len(r.Public()), len(sealed))
		if len(r.Public()) > MaxPublicSize {
			t.Errorf("public key is longer than MaxPublicSize")
		}
		got, err := r.OpenMediaKey([]byte("context"), sealed)
		if err != nil || !got.Equal(k) {
			t.Fatalf("suite %d: %v", suite, err)
		}
		if r.ID() != PublicID(r.Public()) || r.Suite() != suite {
			t.Error("id or suite")
		}

		other, _ := GenerateReceiverKey(suite)
		bent := bytes.Clone(sealed)
		bent[len(bent)-1] ^= 1
		short, _ := Seal(suite, r.Public(), []byte("context"), []byte("short"))
		for name, try := range map[string]func() error{
			"wrong info":     func() error { _, err := r.OpenMediaKey([]byte("other"), sealed); return err },
			"bent":           func() error { _, err := r.OpenMediaKey([]byte("context"), bent); return err },
			"cut":            func() error { _, err := r.OpenMediaKey([]byte("context"), sealed[:10]); return err },
			"empty":          func() error { _, err := r.OpenMediaKey([]byte("context"), nil); return err },
			"other receiver": func() error { _, err := other.OpenMediaKey([]byte("context"), sealed); return err },
			"not a key":      func() error { _, err := r.OpenMediaKey([]byte("context"), short); return err },
		} {
			if try() == nil {
				t.Errorf("suite %d: %s opened", suite, name)
			}
		}
		r.Wipe()
		if _, err := r.OpenMediaKey([]byte("context"), sealed); err == nil || !r.IsZero() {
			t.Error("a wiped receiver key opened")
		}
	}
}

func TestSealRefuses(t *testing.T) {
	k, _ := NewMediaKey(nil)
	r, _ := GenerateReceiverKey(SuiteX25519)
	if _, err := SealMediaKey(9, r.Public(), nil, k); err == nil || !strings.Contains(err.Error(), "unknown HPKE suite 9") {
		t.Errorf("unknown suite: %v", err)
	}
	if _, err := GenerateReceiverKey(0); err == nil {
		t.Error("suite 0 accepted")
	}
	if err := CheckPublic(SuiteMLKEM768X25519, r.Public()); err == nil {
		t.Error("an X25519 key passed for MLKEM768X25519")
	}
	if err := CheckPublic(SuiteX25519, make([]byte, 31)); err == nil {
		t.Error("31 bytes accepted")
	}
	k.Wipe()
	if _, err := SealMediaKey(SuiteX25519, r.Public(), nil, k); err == nil {
		t.Error("a wiped key was sealed")
	}
}

func FuzzOpenMediaKey(f *testing.F) {
	r, err := GenerateReceiverKey(SuiteX25519)
	if err != nil {
		f.Fatal(err)
	}
	k, _ := NewMediaKey(nil)
	sealed, _ := SealMediaKey(SuiteX25519, r.Public(), []byte("i"), k)
	f.Add([]byte("i"), sealed)
	f.Fuzz(func(t *testing.T, info, b []byte) {
		got, err := r.OpenMediaKey(info, b)
		if err == nil && !got.Equal(k) {
			t.Error("bytes that we did not seal opened")
		}
		_ = CheckPublic(SuiteMLKEM768X25519, b)
		_ = CheckPublic(SuiteX25519, b)
	})
}

func BenchmarkSealMediaKey(b *testing.B) {
	r, _ := GenerateReceiverKey(SuiteMLKEM768X25519)
	k, _ := NewMediaKey(nil)
	pub := r.Public()
	for b.Loop() {
		if _, err := SealMediaKey(SuiteMLKEM768X25519, pub, []byte("context"), k); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenMediaKey(b *testing.B) {
	r, _ := GenerateReceiverKey(SuiteMLKEM768X25519)
	k, _ := NewMediaKey(nil)
	sealed, _ := SealMediaKey(SuiteMLKEM768X25519, r.Public(), []byte("context"), k)
	for b.Loop() {
		if _, err := r.OpenMediaKey([]byte("context"), sealed); err != nil {
			b.Fatal(err)
		}
	}
}
