package media

import "time"

// MPEG-TS facts (ISO/IEC 13818-1 §2.4; RFC 2250 §2, RFC 3551 §6).
const (
	TSPacketSize  = 188
	TSPerRTP      = 7    // fits 1316 bytes of payload under every usual MTU
	PayloadTypeTS = 33   // RTP/AVP MP2T, 90 kHz clock
	PIDNull       = 8191 // stuffing
	PIDPAT        = 0
	tsSync        = 0x47
)

// ValidTS reports whether b is one or more whole transport stream packets: a
// multiple of 188 bytes with a sync byte at the start of each.
func ValidTS(b []byte) bool {
	if len(b) == 0 || len(b)%TSPacketSize != 0 {
		return false
	}
	for i := 0; i < len(b); i += TSPacketSize {
		if b[i] != tsSync {
			return false
		}
	}
	return true
}

// PID is the packet identifier of one transport stream packet, which must be valid.
func PID(ts []byte) uint16 { return uint16(ts[1]&0x1f)<<8 | uint16(ts[2]) }

// FindPAT is the offset in b of the first packet that begins a program
// association table, where a new viewer can start; -1 if there is none. b must
// be valid ([ValidTS]).
func FindPAT(b []byte) int {
	for i := 0; i+TSPacketSize <= len(b); i += TSPacketSize {
		if PID(b[i:]) == PIDPAT && b[i+1]&0x40 != 0 {
			return i
		}
	}
	return -1
}

// adaptation is the adaptation field of a packet without its length byte; empty
// when there is none or it does not fit.
func adaptation(ts []byte) []byte {
	if len(ts) < TSPacketSize || ts[3]&0x20 == 0 {
		return nil
	}
	n := int(ts[4])
	if n > TSPacketSize-5 {
		return nil
	}
	return ts[5 : 5+n]
}

// RandomAccess reports whether a decoder can start at this packet: the encoder's
// own mark of a key frame.
func RandomAccess(ts []byte) bool {
	a := adaptation(ts)
	return len(a) > 0 && a[0]&0x40 != 0
}

// ProgramMapPID is the PID of the first program's map table, which the packet's
// program association table names (ISO/IEC 13818-1 §2.4.4.3); false when the
// packet does not hold the table's beginning or names none.
func ProgramMapPID(ts []byte) (uint16, bool) {
	b := payloadStart(ts)
	if PID(ts) != PIDPAT || len(b) < 1 || len(b) < 1+int(b[0])+8 {
		return 0, false
	}
	b = b[1+int(b[0]):]                       // the pointer field
	for b = b[8:]; len(b) >= 4+4; b = b[4:] { // up to the CRC
		if program := uint16(b[0])<<8 | uint16(b[1]); program != 0 && program != 0xffff {
			return uint16(b[2]&0x1f)<<8 | uint16(b[3]), true
		}
	}
	return 0, false
}

// VideoStart reports whether a video elementary stream's packet begins here
// (stream_id 1110 xxxx, ISO/IEC 13818-1 table 2-22).
func VideoStart(ts []byte) bool {
	b := payloadStart(ts)
	return len(b) >= 4 && b[0] == 0 && b[1] == 0 && b[2] == 1 && b[3]&0xf0 == 0xe0
}

// payloadStart is the payload of a packet in which a section or an elementary
// stream's packet begins; empty for any other.
func payloadStart(ts []byte) []byte {
	if len(ts) < TSPacketSize || ts[1]&0x40 == 0 || ts[3]&0x10 == 0 {
		return nil
	}
	at := 4
	if ts[3]&0x20 != 0 {
		at += 1 + int(ts[4])
	}
	if at >= TSPacketSize {
		return nil
	}
	return ts[at:TSPacketSize]
}

// Discontinuity reports whether the packet announces that its continuity counter
// or, on the PCR's PID, the clock begins anew.
func Discontinuity(ts []byte) bool {
	a := adaptation(ts)
	return len(a) > 0 && a[0]&0x80 != 0
}

// PCR is a program clock reference: 42 bits of a 27 MHz clock.
type PCR uint64

// The PCR's clock.
const (
	pcrHz    = 27_000_000
	pcrCycle = PCR(1<<33) * 300 // it wraps after 26.5 hours
)

// Ticks90k is the clock in the 90 kHz units of RTP timestamps, wrapped to 32 bits.
func (p PCR) Ticks90k() uint32 { return uint32(p / 300) }

// ParsePCR reads the clock reference of one packet; false when it carries none.
func ParsePCR(ts []byte) (PCR, bool) {
	a := adaptation(ts)
	if len(a) < 7 || a[0]&0x10 == 0 {
		return 0, false
	}
	base := PCR(a[1])<<25 | PCR(a[2])<<17 | PCR(a[3])<<9 | PCR(a[4])<<1 | PCR(a[5])>>7
	ext := PCR(a[5]&1)<<8 | PCR(a[6])
	return (base*300 + ext) % pcrCycle, true
}

// maxPCRStep is the longest step between two references that still counts as
// the same clock. The standard asks for one every 100 ms; files from careless
// tools have them seconds apart.
const maxPCRStep = 10 * time.Second

// PCRClock follows the references of the first PID that carries them and turns
// them into elapsed time. The zero value is ready.
type PCRClock struct {
	started bool
	pid     uint16
	last    PCR
	elapsed time.Duration
}

// PCRTick is what one reference told.
type PCRTick struct {
	// Elapsed is the stream's time since its first reference. It never falls.
	Elapsed time.Duration
	// Jump: the clock does not continue the one before; Elapsed stands still here.
	Jump bool
}

// Next takes one transport stream packet. It is false for a packet without a
// reference on the clock's PID. Wraps of the 33-bit counter are not jumps.
func (c *PCRClock) Next(ts []byte) (PCRTick, bool) {
	pcr, ok := ParsePCR(ts)
	if !ok || c.started && PID(ts) != c.pid {
		return PCRTick{}, false
	}
	if !c.started {
		c.started, c.pid, c.last = true, PID(ts), pcr
		return PCRTick{}, true
	}
	step := time.Duration((pcr+pcrCycle-c.last)%pcrCycle) * 1000 / (pcrHz / 1_000_000)
	c.last = pcr
	if Discontinuity(ts) || step > maxPCRStep {
		return PCRTick{Elapsed: c.elapsed, Jump: true}, true
	}
	c.elapsed += step
	return PCRTick{Elapsed: c.elapsed}, true
}
