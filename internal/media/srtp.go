package media

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

const (
	tagSize = 16 // RFC 7714 §12.1
	mkiSize = 4
)

// Overhead is how many bytes longer a packet is under SRTP: tag and MKI.
const Overhead = tagSize + mkiSize

// The errors of [Sealer.Seal] that a caller acts upon.
var (
	// ErrIndexUsed: the index is not above every index sealed before. Sealing it
	// would use a nonce twice.
	ErrIndexUsed = errors.New("packet index already used or passed under this key: indices must rise")
	// ErrIndexRange: the index has more than 48 bits. The stream needs a new session.
	ErrIndexRange = errors.New("packet index beyond 2^48-1: start a new session")
)

// Sealer protects the packets of one stream's epoch: one key, one SSRC, one MKI.
// It is not for concurrent use.
type Sealer struct {
	aead  cipher.AEAD
	salt  [sessionSalt]byte
	nonce [sessionSalt]byte
	ssrc  uint32
	epoch gaitkeeper.Epoch
	next  gaitkeeper.Index // lowest index that may still be sealed
}

// NewSealer makes the sealer of one epoch. It copies what it needs of key. The
// error names a wiped key or epoch 0.
func NewSealer(key keyring.MediaKey, ssrc uint32, epoch gaitkeeper.Epoch) (s *Sealer, err error) {
	key.Expose(func(k, salt []byte) { s, err = newSealer(k, salt, ssrc, epoch) })
	return s, err
}

func newSealer(key, salt []byte, ssrc uint32, epoch gaitkeeper.Epoch) (*Sealer, error) {
	if epoch == 0 {
		return nil, errors.New("epoch 0 has no key: epochs begin at 1")
	}
	aead, sessionSalt, err := sessionKeys(key, salt)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead: aead, salt: sessionSalt, ssrc: ssrc, epoch: epoch}, nil
}

// SetFloor makes i the lowest index that Seal accepts. It never lowers what was
// set or used before.
func (s *Sealer) SetFloor(i gaitkeeper.Index) { s.next = max(s.next, i) }

// Next is the lowest index that Seal accepts.
func (s *Sealer) Next() gaitkeeper.Index { return s.next }

// Epoch is the epoch whose key s holds.
func (s *Sealer) Epoch() gaitkeeper.Epoch { return s.epoch }

// Seal appends the protected packet to dst and returns the longer slice. The
// header must be a whole RTP header with the sealer's SSRC and the sequence
// number index&0xffff. Seal allocates nothing when dst has room for header,
// payload and [Overhead]. The payload may lie exactly where its ciphertext goes;
// any other overlap of header or payload with dst's free room is forbidden.
//
// Errors: [ErrIndexUsed], [ErrIndexRange], or a header that does not fit; then
// nothing was used and dst is returned as it was.
func (s *Sealer) Seal(dst, header, payload []byte, index gaitkeeper.Index) ([]byte, error) {
	if s.aead == nil {
		return dst, errors.New("media key of this epoch was wiped: seal under the current one")
	}
	if index > gaitkeeper.MaxIndex {
		return dst, ErrIndexRange
	}
	if index < s.next {
		return dst, ErrIndexUsed
	}
	h, err := ParseHeader(header)
	if err != nil {
		return dst, err
	}
	if h.Size != len(header) || h.SSRC != s.ssrc || h.Seq != index.Seq() {
		return dst, fmt.Errorf("RTP header (size %d, ssrc %08x, seq %d) does not fit %d bytes, ssrc %08x, index %d",
			h.Size, h.SSRC, h.Seq, len(header), s.ssrc, index)
	}
	s.next = index + 1
	nonce(&s.nonce, &s.salt, s.ssrc, index)
	start := len(dst)
	dst = append(dst, header...)
	dst = s.aead.Seal(dst, s.nonce[:], payload, dst[start:])
	return binary.BigEndian.AppendUint32(dst, uint32(s.epoch)), nil
}

// Wipe makes s unusable and clears what it can reach. The expanded cipher key
// belongs to crypto/aes and is left to the garbage collector.
func (s *Sealer) Wipe() {
	clear(s.salt[:])
	clear(s.nonce[:])
	s.aead = nil
}

// Format keeps key material out of anything that prints s.
func (s *Sealer) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "sealer(ssrc %08x, epoch %d)", s.ssrc, s.epoch)
}

// PacketEpoch is the epoch that an SRTP packet names in its MKI. It is false for
// a packet with no room for an RTP header, a tag and an MKI.
func PacketEpoch(pkt []byte) (gaitkeeper.Epoch, bool) {
	if len(pkt) < rtpFixedSize+Overhead {
		return 0, false
	}
	return gaitkeeper.Epoch(binary.BigEndian.Uint32(pkt[len(pkt)-mkiSize:])), true
}

// nonce forms the initialisation vector of RFC 7714 §8.1:
// (00 00 ‖ SSRC ‖ ROC ‖ SEQ) XOR salt.
func nonce(n, salt *[sessionSalt]byte, ssrc uint32, index gaitkeeper.Index) {
	n[0], n[1] = salt[0], salt[1]
	binary.BigEndian.PutUint32(n[2:], binary.BigEndian.Uint32(salt[2:])^ssrc)
	binary.BigEndian.PutUint32(n[6:], binary.BigEndian.Uint32(salt[6:])^index.ROC())
	binary.BigEndian.PutUint16(n[10:], binary.BigEndian.Uint16(salt[10:])^index.Seq())
}
