package attack

import (
	"bytes"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const ssrc, epoch = 0x1234abcd, 7

// source seals packets as a device does.
type source struct {
	t     *testing.T
	key   keyring.MediaKey
	seal  *media.Sealer
	index gk.Index
}

func newSource(t *testing.T, start gk.Index) *source {
	t.Helper()
	key, err := keyring.NewMediaKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{t: t, key: key, index: start}
	if s.seal, err = media.NewSealer(key, ssrc, epoch); err != nil {
		t.Fatal(err)
	}
	return s
}

func picture(i gk.Index) []byte { return bytes.Repeat([]byte{byte(i)}, 100) }

func (s *source) next() []byte {
	s.t.Helper()
	h := media.Header{PayloadType: 33, Seq: s.index.Seq(), Timestamp: uint32(s.index) * 95, SSRC: ssrc}
	pkt, err := s.seal.Seal(nil, h.AppendTo(nil), picture(s.index), s.index)
	if err != nil {
		s.t.Fatal(err)
	}
	s.index++
	return pkt
}

// What the thief makes is authentic: a receiver that does not know better takes
// it, in every mode and from both places.
func TestForgeriesAreAuthentic(t *testing.T) {
	for _, mode := range Modes {
		for _, place := range []string{"path", "aside"} {
			if mode == Replace && place == "aside" {
				continue
			}
			t.Run(string(mode)+" from the "+place, func(t *testing.T) {
				s := newSource(t, 1<<16-20) // over a wrap of the sequence number
				stolen, err := Steal(ssrc, epoch, s.key)
				if err != nil {
					t.Fatal(err)
				}
				var sent [][]byte
				forward := func(pkt []byte) { sent = append(sent, bytes.Clone(pkt)) }
				var aside func([]byte) error
				if place == "aside" {
					aside = func(pkt []byte) error { forward(pkt); return nil }
				}
				a, err := New(mode, stolen, aside)
				if err != nil {
					t.Fatal(err)
				}
				for range 100 {
					a.Intercept(s.next(), forward)
				}
				stats, err := a.Stats()
				if err != nil || stats.Sent == 0 || stats.Began.IsZero() {
					t.Fatalf("%+v, %v", stats, err)
				}
				open, err := media.NewOpener(s.key, ssrc, epoch)
				if err != nil {
					t.Fatal(err)
				}
				verdicts := map[media.Verdict]int{}
				forged := 0
				for _, pkt := range sent {
					o, v := open.Open(nil, pkt)
					verdicts[v]++
					if v == media.OK && !bytes.Equal(o.Payload, picture(o.Index)) {
						forged++
					}
				}
				if forged == 0 {
					t.Errorf("none of the thief's packets were taken: %v", verdicts)
				}
				switch mode {
				case Leap: // the source is out of the receiver's sight
					if verdicts[media.AuthFail] < 90 {
						t.Errorf("the source goes on undisturbed: %v", verdicts)
					}
				case Replace:
					if len(sent) != 100 || verdicts[media.OK] != 100 || forged != 100 {
						t.Errorf("%d sent, %d forged, %v", len(sent), forged, verdicts)
					}
				default:
					if verdicts[media.TwoWriters] == 0 || verdicts[media.AuthFail] > 0 {
						t.Errorf("%v", verdicts)
					}
				}
			})
		}
	}
}

// After the key was changed the thief goes on under the old one, at the indices
// at which the source is.
func TestThiefGoesOnAfterTheChange(t *testing.T) {
	s := newSource(t, 1<<16-20)
	stolen, err := Steal(ssrc, epoch, s.key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(FirstWriter, stolen, nil)
	if err != nil {
		t.Fatal(err)
	}
	drop := func([]byte) {}
	for range 10 {
		a.Intercept(s.next(), drop)
	}
	after := newSource(t, s.index)
	if after.seal, err = media.NewSealer(after.key, ssrc, epoch+1); err != nil {
		t.Fatal(err)
	}
	open, err := media.NewOpener(s.key, ssrc, epoch)
	if err != nil {
		t.Fatal(err)
	}
	open.Hint(s.index)
	for range 40 {
		want := after.index
		var sent [][]byte
		a.Intercept(after.next(), func(pkt []byte) { sent = append(sent, bytes.Clone(pkt)) })
		if o, v := open.Open(nil, sent[0]); v != media.OK || o.Index != want {
			t.Fatalf("at index %d the thief sends %v at %d", want, v, o.Index)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	s := newSource(t, 1)
	stolen, err := Steal(ssrc, epoch, s.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New("bribe", stolen, nil); err == nil {
		t.Error("a mode that is none")
	}
	if _, err := New(Replace, stolen, func([]byte) error { return nil }); err == nil {
		t.Error("replace from aside")
	}
	stolen.Key.Wipe()
	if _, err := New(Inject, stolen, nil); err == nil {
		t.Error("a wiped key")
	}
}
