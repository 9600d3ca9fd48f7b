// Package attack plays the thief of a media key, for tests and demonstrations:
// somebody who reads along on the path, holds the key of one epoch, and seals
// packets of his own that nothing but their consequences tells from the source's.
package attack

import (
	"encoding/binary"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// Stolen is a media key with what belongs to it.
type Stolen struct {
	SSRC  uint32
	Epoch gk.Epoch
	Key   keyring.MediaKey
}

// Steal copies a key that is about to be wiped.
func Steal(ssrc uint32, epoch gk.Epoch, key keyring.MediaKey) (s Stolen, err error) {
	s.SSRC, s.Epoch = ssrc, epoch
	key.Expose(func(k, salt []byte) {
		b := append(append(make([]byte, 0, keyring.MediaKeySize), k...), salt...)
		s.Key, err = keyring.MediaKeyFromBytes(b)
		clear(b)
	})
	return s, err
}

// recorded is how many of the source's payloads the thief keeps to show again.
const recorded = 256

// thief holds the stolen key. He knows where the source is from the packets that
// pass, for as long as the key opens them, and by counting from then on.
type thief struct {
	Stolen
	open   *media.Opener
	seal   *media.Sealer
	at     gk.Index     // of the packet that passed last
	shut   bool         // the key did not open that packet
	header media.Header // of that packet
	films  [][]byte     // payloads of the source, oldest first
	out    []byte
	clear  []byte
}

func newThief(s Stolen) (*thief, error) {
	open, err := media.NewOpener(s.Key, s.SSRC, s.Epoch)
	return &thief{Stolen: s, open: open, clear: make([]byte, 0, 2048)}, err
}

// look reads a packet that passes. It is false while the thief does not know the
// source's index.
func (t *thief) look(pkt []byte) bool {
	h, err := media.ParseHeader(pkt)
	if err != nil || h.SSRC != t.SSRC {
		return false
	}
	o, v := t.open.OpenParsed(t.clear[:0], pkt, h)
	if t.shut = v != media.OK; !t.shut {
		t.at, t.header = o.Index, o.Header
		if len(t.films) == recorded {
			t.films = append(t.films[:0], t.films[1:]...)
		}
		t.films = append(t.films, append([]byte(nil), o.Payload...))
		return true
	}
	if t.at == 0 {
		return false
	}
	// The key does not open it any more: the sequence number is in the clear.
	t.at += gk.Index(int64(int16(h.Seq - t.at.Seq())))
	t.header = h
	return true
}

// forge seals a packet of the thief's at an index. It is valid until the next one.
func (t *thief) forge(at gk.Index, payload []byte) ([]byte, error) {
	if t.seal == nil || at < t.seal.Next() {
		// A sealer refuses what is behind it. The thief does not mind using a
		// nonce twice.
		var err error
		if t.seal, err = media.NewSealer(t.Key, t.SSRC, t.Epoch); err != nil {
			return nil, err
		}
	}
	h := t.header
	h.Seq = at.Seq()
	h.Timestamp += uint32(at-t.at) * ticksPerPacket
	var err error
	t.out, err = t.seal.Seal(t.out[:0], h.AppendTo(nil), payload, at)
	return t.out, err
}

// ticksPerPacket is about what lies between two packets of a few Mb/s, in 90 kHz.
const ticksPerPacket = 95

// Mark is in every transport stream packet that the thief makes up himself.
const Mark = "this picture is not the camera's"

// forgery is seven transport stream packets of the null PID that bear the mark.
func forgery(at gk.Index) []byte {
	b := make([]byte, media.TSPerRTP*media.TSPacketSize)
	for p := 0; p < len(b); p += media.TSPacketSize {
		b[p], b[p+1], b[p+2], b[p+3] = 0x47, 0x1f, 0xff, 0x10
		binary.BigEndian.PutUint64(b[p+4:], uint64(at))
		copy(b[p+12:], Mark)
	}
	return b
}
