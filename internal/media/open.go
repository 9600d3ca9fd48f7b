package media

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// maxCandidates bounds how many indices a packet is tried under, and so what a
// forged packet costs a receiver that has authenticated nothing yet.
const maxCandidates = 5

// Opener is the receive state of one (session, SSRC, epoch): key, highest index
// and replay window. A packet that does not authenticate changes none of it.
// It is not for concurrent use.
//
// The index of a packet is estimated from the highest authenticated one (RFC
// 3711 §3.3.1). Before there is one, an opener tries up to five rollover
// counters: around the index it was told ([Opener.Begin], [Opener.Hint]), at the
// one it was led to suspect ([Opener.Suspect]), and zero, because some senders
// restart the counter with a key; or, told nothing, zero to three.
type Opener struct {
	aead  cipher.AEAD
	salt  [sessionSalt]byte
	nonce [sessionSalt]byte
	ssrc  uint32
	epoch gaitkeeper.Epoch

	floor  gaitkeeper.Index // packets below are TooOld
	begin  gaitkeeper.Index // authentic packets below are BeforeFirst
	end    gaitkeeper.Index // authentic packets from here on are PastEnd
	hint   gaitkeeper.Index
	hinted bool
	// suspect is an index near which the sender may be, if nobody leapt there.
	suspect   gaitkeeper.Index
	suspected bool
	window    replayWindow
}

// Opened is a packet that authenticated. Payload lies in the dst given to Open.
type Opened struct {
	Header  Header
	Index   gaitkeeper.Index
	Payload []byte // clear, padding included
}

// NewOpener makes the receive state of one epoch. It copies what it needs of
// key. The error names a wiped key or epoch 0.
func NewOpener(key keyring.MediaKey, ssrc uint32, epoch gaitkeeper.Epoch) (o *Opener, err error) {
	key.Expose(func(k, salt []byte) { o, err = newOpener(k, salt, ssrc, epoch) })
	return o, err
}

func newOpener(key, salt []byte, ssrc uint32, epoch gaitkeeper.Epoch) (*Opener, error) {
	if epoch == 0 {
		return nil, errors.New("epoch 0 has no key: epochs begin at 1")
	}
	aead, sessionSalt, err := sessionKeys(key, salt)
	if err != nil {
		return nil, err
	}
	return &Opener{aead: aead, salt: sessionSalt, ssrc: ssrc, epoch: epoch, end: gaitkeeper.MaxIndex + 1}, nil
}

// Begin tells the index at which the epoch starts, exactly: authentic packets
// below it are [BeforeFirst]. It outweighs every hint given before.
func (o *Opener) Begin(first gaitkeeper.Index) {
	o.begin = first
	if !o.window.started {
		o.hinted = false
	}
	o.Hint(first)
}

// End tells the index at which the next epoch starts: authentic packets from it
// on are [PastEnd], and do not move the receive state.
func (o *Opener) End(next gaitkeeper.Index) { o.end = next }

// Hint tells an index near which the sender is, such as the device's last
// report. Lower ones than told before are ignored.
func (o *Opener) Hint(near gaitkeeper.Index) {
	if !o.hinted || near > o.hint {
		o.hint, o.hinted = near, true
	}
}

// Suspect tells an index near which the sender is for all that is known, but not
// by its own word: the highest of the epoch before, where a thief of that key may
// have been. It is tried beside what Begin and Hint told. The last one told holds.
func (o *Opener) Suspect(near gaitkeeper.Index) { o.suspect, o.suspected = near, true }

// Resume tells the sender's index for an epoch that was under way before this
// opener was made. What is a replay window below is [TooOld], so that a recording
// of the epoch is not taken for it.
func (o *Opener) Resume(near gaitkeeper.Index) {
	o.Hint(near)
	if near > windowSize {
		o.floor = max(o.floor, near-windowSize)
	}
}

// Highest is the highest authenticated index below the end; false when nothing
// authenticated yet.
func (o *Opener) Highest() (gaitkeeper.Index, bool) { return o.window.highest, o.window.started }

// Epoch is the epoch whose key o holds.
func (o *Opener) Epoch() gaitkeeper.Epoch { return o.epoch }

// Open authenticates and decrypts pkt, appending the clear payload to dst. pkt is
// left as it was; dst's free room must not overlap it, and is scratch unless the
// verdict is [OK]. Opened is zero unless the packet authenticated. Open allocates
// nothing when dst has room for the packet.
func (o *Opener) Open(dst, pkt []byte) (Opened, Verdict) {
	h, err := ParseHeader(pkt)
	if err != nil {
		return Opened{}, BadPacket
	}
	return o.OpenParsed(dst, pkt, h)
}

// OpenParsed is [Opener.Open] for a packet whose header the caller has parsed.
func (o *Opener) OpenParsed(dst, pkt []byte, h Header) (Opened, Verdict) {
	if o.aead == nil || h.SSRC != o.ssrc || len(pkt) < h.Size+Overhead {
		return Opened{}, BadPacket
	}
	body := len(pkt) - mkiSize
	if binary.BigEndian.Uint32(pkt[body:]) != uint32(o.epoch) {
		return Opened{}, BadPacket
	}
	tag := binary.BigEndian.Uint32(pkt[body-tagSize:])

	var indices [maxCandidates]gaitkeeper.Index
	verdict := AuthFail
	for _, index := range indices[:o.candidates(&indices, h.Seq)] {
		state := o.window.state(index)
		if state == replayTooOld || index < o.floor {
			verdict = TooOld
			continue
		}
		if state == replaySeen && o.window.tag(index) == tag {
			return Opened{}, Duplicate
		}
		nonce(&o.nonce, &o.salt, o.ssrc, index)
		payload, err := o.aead.Open(dst, o.nonce[:], pkt[h.Size:body], pkt[:h.Size])
		if err != nil {
			continue
		}
		opened := Opened{Header: h, Index: index, Payload: payload[len(dst):]}
		switch {
		case index >= o.end:
			return opened, PastEnd
		case index < o.begin:
			return opened, BeforeFirst
		case state == replaySeen:
			return opened, TwoWriters
		}
		o.window.mark(index, tag)
		return opened, OK
	}
	return Opened{}, verdict
}

// candidates lists the indices that a packet with this sequence number may have,
// likeliest first.
func (o *Opener) candidates(out *[maxCandidates]gaitkeeper.Index, seq uint16) int {
	n := 0
	add := func(i gaitkeeper.Index) {
		if i > gaitkeeper.MaxIndex {
			return
		}
		for _, have := range out[:n] {
			if have == i {
				return
			}
		}
		out[n] = i
		n++
	}
	const cycle = 1 << 16
	switch {
	case o.window.started:
		add(estimate(o.window.highest, seq))
		// After an outage of half a cycle the sequence number alone says nothing.
		if o.hinted && o.hint > o.window.highest {
			add(estimate(o.hint, seq))
		}
	case o.hinted || o.suspected:
		near := o.hint
		if !o.hinted {
			near = o.suspect
		}
		i := estimate(near, seq)
		add(i)
		if o.suspected {
			add(estimate(o.suspect, seq))
		}
		add(i + cycle)
		if i >= cycle {
			add(i - cycle)
		}
		add(gaitkeeper.Index(seq))
	default:
		for roc := range gaitkeeper.Index(4) {
			add(roc*cycle + gaitkeeper.Index(seq))
		}
	}
	return n
}

// estimate is the index with sequence number seq nearest to the reference (RFC
// 3711 §3.3.1, appendix A), never below zero.
func estimate(ref gaitkeeper.Index, seq uint16) gaitkeeper.Index {
	const half, cycle = 1 << 15, 1 << 16
	i := ref&^(cycle-1) | gaitkeeper.Index(seq)
	last := ref.Seq()
	switch {
	case last < half && int(seq)-int(last) > half && i >= cycle:
		return i - cycle
	case last >= half && int(last)-half > int(seq):
		return i + cycle
	}
	return i
}

// Format keeps key material out of anything that prints o.
func (o *Opener) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "opener(ssrc %08x, epoch %d)", o.ssrc, o.epoch)
}

// Wipe makes o unusable and clears what it can reach. The expanded cipher key
// belongs to crypto/aes and is left to the garbage collector.
func (o *Opener) Wipe() {
	clear(o.salt[:])
	clear(o.nonce[:])
	o.aead = nil
	o.window = replayWindow{}
}
