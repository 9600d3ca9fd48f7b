package demo

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// fateKnown is when a packet that the path has not dropped yet will not be
// dropped any more: the relay decides as soon as it has received it.
const fateKnown = 3 * time.Second

// meter compares what entered the device with what the transport delivered.
// It is called from the packet path at both ends, from the relay between them,
// and with the events of device and services.
type meter struct {
	mu      sync.Mutex
	started time.Time

	in, out count // what entered the device; what the transport delivered
	sealedN uint64
	expect  hash.Hash // of what the path did not drop
	pending []*packet
	bySeq   map[uint16]*packet // of pending
	drops   uint64
	undec   uint64

	epoch     gk.Epoch
	keySince  time.Time
	decided   map[epochOf]time.Time // by the processing service
	ready     map[epochOf]time.Time // the device's next packet goes under the epoch
	first     map[epochOf]time.Time // a packet of the epoch was opened
	byReason  map[gk.Reason]uint64
	rotations uint64
	last      time.Duration
	why       gk.Reason
}

type count struct {
	packets, bytes uint64
	sum            hash.Hash
}

type packet struct {
	seq     uint16
	sent    time.Time
	payload []byte
	dropped bool
}

type epochOf struct {
	session gk.SessionID
	epoch   gk.Epoch
}

func newMeter() *meter {
	return &meter{
		in: count{sum: sha256.New()}, out: count{sum: sha256.New()}, expect: sha256.New(),
		bySeq: map[uint16]*packet{}, byReason: map[gk.Reason]uint64{},
		decided: map[epochOf]time.Time{}, ready: map[epochOf]time.Time{}, first: map[epochOf]time.Time{},
	}
}

func (c *count) add(payload []byte) {
	c.packets++
	c.bytes += uint64(len(payload))
	c.sum.Write(payload)
}

func (m *meter) begin(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = now
}

// entered takes what the source gave to the device.
func (m *meter) entered(payload []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.in.add(payload)
}

// sealed takes what the device sealed under an index, before it leaves.
func (m *meter) sealed(index gk.Index, payload []byte) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sealedN++
	p := &packet{seq: index.Seq(), sent: now, payload: slices.Clone(payload)}
	m.pending = append(m.pending, p)
	m.bySeq[p.seq] = p
	m.conclude(now.Add(-fateKnown))
}

// dropped takes a packet that the path threw away: an SRTP packet, whose
// sequence number is in the clear (RFC 3550 §5.1).
func (m *meter) dropped(packet []byte) {
	if len(packet) < 4 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drops++
	if p := m.bySeq[binary.BigEndian.Uint16(packet[2:])]; p != nil {
		p.dropped = true
	}
}

// conclude adds to the expected sum what was sent before a time and not dropped.
func (m *meter) conclude(before time.Time) {
	n := 0
	for _, p := range m.pending {
		if !p.sent.Before(before) {
			break
		}
		if !p.dropped {
			m.expect.Write(p.payload)
		}
		if m.bySeq[p.seq] == p {
			delete(m.bySeq, p.seq)
		}
		n++
	}
	m.pending = slices.Delete(m.pending, 0, n)
}

// delivered takes what the transport gave to its outputs.
func (m *meter) delivered(payload []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.out.add(payload)
}

func (m *meter) undecryptable(n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.undec = n
}

// device takes the device's own events: it is ready to send under a new key.
func (m *meter) device(e gk.Event) {
	if e.Kind != gk.EventRotationDone {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch, m.keySince = e.Epoch, e.At
	m.ready[epochOf{e.Session, e.Epoch}] = e.At
}

// service takes the services' events.
func (m *meter) service(e gk.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := epochOf{e.Session, e.Epoch}
	switch e.Kind {
	case gk.EventRotationDone:
		if e.Reason != gk.ReasonStart {
			m.decided[k] = e.At.Add(-e.Took)
			m.rotations++
			m.byReason[e.Reason]++
			m.last, m.why = e.Took, e.Reason
		}
	case gk.EventEpochFirstPacket:
		m.first[k] = e.At
	}
}

// since gives, for every rotation, the time from its decision to then.
func (m *meter) since(then map[epochOf]time.Time) []time.Duration {
	var all []time.Duration
	for k, at := range m.decided {
		if t, ok := then[k]; ok {
			all = append(all, t.Sub(at))
		}
	}
	return all
}

// running is how long ago the first packet entered; 0 before it.
func (m *meter) running(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started.IsZero() {
		return 0
	}
	return now.Sub(m.started)
}

// since0 is a time in milliseconds after the first packet; nil for none.
func (m *meter) since0(t time.Time) *float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.IsZero() || m.started.IsZero() {
		return nil
	}
	ms := math.Round(float64(t.Sub(m.started))/float64(time.Millisecond/10)) / 10
	return &ms
}

// rate is what the source sends, in bytes a second of packets on the wire.
func (m *meter) rate() float64 {
	const overhead = 12 + 16 + 4 // RTP header, tag, MKI
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	return float64(m.in.bytes+overhead*m.in.packets) / now.Sub(m.started).Seconds()
}

// State is a demonstration's state at one moment.
type State struct {
	URL       string
	Running   time.Duration
	Epoch     gk.Epoch
	KeyAge    time.Duration
	Sent      uint64 // packets
	Bytes     uint64 // that entered the device
	Delivered uint64
	Dropped   uint64 // by the media path
	Rotations uint64
	Last      time.Duration // last rotation, decision to the device's confirmation
	Why       gk.Reason

	Act  string // of a story; empty without an attacker
	News []Line // of it, so far
}

func (m *meter) state(url string) State {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := State{
		URL: url, Epoch: m.epoch, Sent: m.in.packets, Bytes: m.in.bytes, Delivered: m.out.packets,
		Dropped: m.drops, Rotations: m.rotations, Last: m.last, Why: m.why,
	}
	if !m.started.IsZero() {
		s.Running = now.Sub(m.started)
	}
	if !m.keySince.IsZero() {
		s.KeyAge = now.Sub(m.keySince)
	}
	return s
}

// Summary is what came of a demonstration.
type Summary struct {
	PacketsSent      uint64    `json:"packets_sent"`
	PacketsDelivered uint64    `json:"packets_delivered"`
	PacketsLost      uint64    `json:"packets_lost"` // sent and not delivered, for whatever reason
	Undecryptable    uint64    `json:"undecryptable"`
	Rotations        Rotations `json:"rotations"`
	RotationMS       Quantiles `json:"rotation_ms"`     // decision to the device ready to send under the new key
	FirstPacketMS    Quantiles `json:"first_packet_ms"` // decision to first packet decrypted under it
	SHA256Sent       string    `json:"sha256_sent"`
	SHA256Expected   string    `json:"sha256_expected"` // of what was sent, less what the path dropped
	SHA256Delivered  string    `json:"sha256_delivered"`

	Attacks         []Attack `json:"attacks"`
	FalseAlarms     uint64   `json:"false_alarms"`      // alerts that no attack accounts for
	Displaced       uint64   `json:"displaced"`         // source packets whose index a thief's took before the switch
	LostAfterSwitch uint64   `json:"lost_after_switch"` // source packets under the new key that were not delivered

	dropped uint64
	sealed  uint64
	story   bool
	faults  []string
	alerts  []string // classes
	trace   []moment // empty unless a picture is wanted
	scenes  scenes
	promise string // what a story comes to that has no fault

	forged, replayed uint64
}

// Rotations counts rotations that the device confirmed; a session's first key
// is none.
type Rotations struct {
	Count    uint64               `json:"count"`
	ByReason map[gk.Reason]uint64 `json:"by_reason"`
}

// Quantiles are in milliseconds, zero where nothing was measured.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (m *meter) summary() Summary {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conclude(time.Now().Add(time.Hour))
	return Summary{
		PacketsSent: m.in.packets, PacketsDelivered: m.out.packets, PacketsLost: m.in.packets - min(m.in.packets, m.out.packets),
		Undecryptable: m.undec, Rotations: Rotations{m.rotations, m.byReason},
		RotationMS: quantiles(m.since(m.ready)), FirstPacketMS: quantiles(m.since(m.first)),
		SHA256Sent: sumText(m.in.sum), SHA256Expected: sumText(m.expect), SHA256Delivered: sumText(m.out.sum),
		dropped: m.drops, sealed: m.sealedN,
	}
}

// Told says whether an attacker was there.
func (s Summary) Told() bool { return s.story }

// Verdict says of a story how it came out.
func (s Summary) Verdict() string {
	if fault := s.Fault(); fault != "" {
		return "NOT as promised: " + fault
	}
	return "as promised: " + s.promise
}

// Dropped is how many packets the media path threw away.
func (s Summary) Dropped() uint64 { return s.dropped }

// Fault says what went wrong, or "". Without an attacker all is well if every byte
// that the path let through was delivered as it was sent, and nothing was
// undecryptable; with one, if the story came out as promised.
func (s Summary) Fault() string {
	switch {
	case s.PacketsSent == 0:
		return "nothing was sent"
	case s.story:
		return strings.Join(s.faults, "; ")
	case s.sealed != s.PacketsSent:
		return "the device did not send everything that entered it"
	case s.Undecryptable > 0:
		return "packets arrived that could not be decrypted"
	case s.PacketsLost > s.dropped:
		return "packets were lost that the path did not drop"
	case s.SHA256Delivered != s.SHA256Expected:
		return "the bytes delivered are not the bytes sent"
	}
	return ""
}

func sumText(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// quantiles are nearest-rank, so that each is a duration that occurred.
func quantiles(all []time.Duration) Quantiles {
	if len(all) == 0 {
		return Quantiles{}
	}
	sorted := slices.Sorted(slices.Values(all))
	rank := func(q float64) float64 {
		i := int(math.Ceil(q*float64(len(sorted)))) - 1
		return math.Round(float64(sorted[max(i, 0)])/float64(time.Microsecond)) / 1000
	}
	return Quantiles{rank(0.5), rank(0.99), rank(1)}
}
