package processing

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// encoder plays an H.264 encoder over RTP (RFC 6184) and measures what it sends as
// a transport does.
type encoder struct {
	rng    *rand.Rand
	meter  *feature.Meter
	style  style
	now    int64
	next   int64 // frame
	frame  int
	seq    uint16
	ts     uint32
	jitter int64 // ns
	lose   float64
	cut    bool // nothing comes through
	body   [2048]byte
}

// style is what tells one encoder from another.
type style struct {
	fps, gop  int
	predicted int   // packets of a predicted frame
	fragment  int   // bytes of one
	nal       uint8 // importance bits of predicted slices
	sps       byte
}

var (
	own     = style{fps: 25, gop: 25, predicted: 5, fragment: 1200, nal: 0x60, sps: 0x1e}
	foreign = style{fps: 30, gop: 60, predicted: 11, fragment: 1380, nal: 0x20, sps: 0x28}
)

// drawn is how many bytes of a fragment are its own. Meters look at less.
const drawn = 64

func newEncoder(seed uint64, s style) *encoder {
	return &encoder{rng: rand.New(rand.NewPCG(seed, 17)), meter: feature.NewMeter(feature.H264), style: s, jitter: 2e6}
}

// hop sends 250 ms and gives their window.
func (e *encoder) hop() feature.Window {
	end := e.now + feature.Hop
	for e.next < end {
		e.picture()
		e.next += int64(time.Second) / int64(e.style.fps)
	}
	e.now = end
	var w feature.Window
	e.meter.Roll(&w, end)
	return w
}

func (e *encoder) picture() {
	at := max(e.next, e.now)
	intra := e.frame%e.style.gop == 0
	n := e.style.predicted + e.rng.IntN(3) - 1
	nal := e.style.nal | 1
	if intra {
		n, nal = 25+e.rng.IntN(5), 0x65
		e.packet(at, []byte{0x67, 0x64, 0x00, e.style.sps, 0xac, 0xd9, 0x40, 0x50}, false)
		e.packet(at, []byte{0x68, 0xeb, 0xe3, e.style.sps}, false)
	}
	for i := range n {
		head := []byte{nal&0xe0 | 28, nal & 0x1f}
		size := e.style.fragment
		switch i {
		case 0:
			head = append(head[:1], head[1]|0x80, 0x9a|e.style.sps&1, 0x20)
		case n - 1:
			head[1] |= 0x40
			size = 100 + e.rng.IntN(e.style.fragment-200)
		}
		body := append(e.body[:0], head...)
		for len(body) < drawn {
			body = binary.LittleEndian.AppendUint64(body, e.rng.Uint64())
		}
		e.packet(at+int64(i)*200e3, e.body[:size], i == n-1)
	}
	e.frame++
	e.ts += uint32(90000 / e.style.fps)
}

func (e *encoder) packet(at int64, payload []byte, marker bool) {
	e.seq++
	if e.cut || e.rng.Float64() < e.lose {
		return
	}
	at += e.rng.Int64N(e.jitter)
	e.meter.Observe(&feature.Packet{
		At:     max(at, e.now),
		Header: feature.Header{Flags: 0x80, PayloadType: 96, Marker: marker, Seq: e.seq, Timestamp: e.ts, SSRC: 7},
		Wire:   12 + len(payload), HeaderLen: 12, Payload: payload,
	})
}

// restart breaks off in the middle of pictures, and begins anew.
func (e *encoder) restart(s style) {
	for range 5 {
		e.packet(e.now, []byte{0x7c, 0x05, 1, 2, 3}, false) // fragments without a begin
		e.packet(e.now, []byte{0x7c, 0x85, 1, 2, 3}, true)  // a picture's end that is none
	}
	e.style, e.frame = s, 0
	e.ts += 7777
}
