package processing

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"

	"golang.org/x/time/rate"
)

const (
	doorQueue    = 1024
	doorWorkers  = 2
	topicRate    = 50          // messages a second for one device and stream, before any signature is checked
	topicBurst   = 100         // enough for a reconnect
	unknownRate  = 20          // look-ups a second of devices that nobody knows
	unknownEvery = time.Second // between two of the same one
	recordFresh  = 5 * time.Second
	recordMaxAge = 10 * time.Second // it is asked for anew meanwhile, and nobody waits
)

// door is what every message from a broker passes before anything believes it.
type door struct {
	s       *Service
	workers []host.Loop
	next    atomic.Uint32 // worker to be given the next message
	mu      sync.Mutex
	devices map[gk.DeviceID]*enrolled
	unknown *rate.Limiter
	sought  map[gk.DeviceID]time.Time // devices that nobody knows, when they were looked up last
}

type knock struct {
	topic   string
	payload []byte
}

// enrolled is a device's record, kept for a moment, with the rates of its topics.
type enrolled struct {
	bus.DeviceRecord
	verifier gkrp.Verifier
	fetched  time.Time
	rates    map[gk.StreamID]*rate.Limiter
	told     time.Time // when a refused message was told of last
	asked    bool      // it is being asked for anew
}

func newDoor(s *Service) *door {
	d := &door{
		s: s, devices: map[gk.DeviceID]*enrolled{},
		unknown: rate.NewLimiter(unknownRate, unknownRate), sought: map[gk.DeviceID]time.Time{},
	}
	for range doorWorkers {
		d.workers = append(d.workers, s.cfg.Host.Loop(doorQueue/doorWorkers))
	}
	return d
}

// knock takes a message from the broker's goroutine; a full queue drops it, and
// the protocol's retry brings it again.
func (d *door) knock(topic string, payload []byte) {
	if len(payload) > gkrp.MaxReport {
		return
	}
	d.workers[d.next.Add(1)%doorWorkers].Offer(func() { d.open(d.s.ctx, knock{topic, payload}) })
}

func (d *door) run() {
	for _, w := range d.workers {
		d.s.beside(func() { w.Run(d.s.ctx, nil, nil) })
	}
}

// open lets a message in if it is small, expected, of an enrolled device and
// rightly signed, in this order.
func (d *door) open(ctx context.Context, k knock) {
	device, id, dir, err := gkrp.ParseTopic(k.topic)
	if err != nil || dir != gkrp.Up {
		return
	}
	if d.stranger(device, id) {
		d.seek(ctx, k, device, id)
		return
	}
	d.hear(k, device, id, d.lookup(ctx, device))
}

// stranger reports whether nothing is known of a device. One whose stream is there is
// none: after a restart they all come together, and wait for no rate.
func (d *door) stranger(device gk.DeviceID, id gk.StreamID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.devices[device] == nil && !d.s.owns(device, id)
}

// seek looks a stranger up, once a second at most, so many of them a second, and beside
// the door: messages under a name that nobody enrolled must keep neither a device that
// was just enrolled nor one that sends waiting, also where key management is slow.
func (d *door) seek(ctx context.Context, k knock, device gk.DeviceID, id gk.StreamID) {
	now := d.s.now()
	d.mu.Lock()
	maps.DeleteFunc(d.sought, func(_ gk.DeviceID, at time.Time) bool { return now.Sub(at) >= unknownEvery })
	_, again := d.sought[device]
	ask := !again && d.unknown.AllowN(now, 1)
	if ask {
		d.sought[device] = now
	}
	d.mu.Unlock()
	if ask {
		d.s.beside(func() { d.hear(k, device, id, d.fetch(ctx, device, nil)) })
	}
}

// hear takes a message of a device, whose record is nil where it has none.
func (d *door) hear(k knock, device gk.DeviceID, id gk.StreamID, dev *enrolled) {
	if dev == nil || !d.allow(dev, id) {
		return
	}
	r, err := gkrp.Parse(k.payload, gkrp.Up)
	if err != nil {
		d.refuse(device, id, err)
		return
	}
	m, err := r.Verify(dev.verifier, gkrp.Scope{Device: device, Stream: id})
	if err != nil {
		d.refuse(device, id, err)
		return
	}
	if !slices.Contains(dev.Streams, id) {
		if h, ok := m.(*gkrp.Hello); ok {
			d.s.send(gkrp.Scope{Device: device, Stream: id}, &gkrp.Reject{
				Session: h.Session, Regarding: gkrp.Hash(r.Payload), Code: gkrp.CodeNotYours,
				Text: fmt.Sprintf("stream %s is not one of device %s: enrol it with gaitkeeper enroll %s --stream %s", id, device, device, id),
			})
		}
		return
	}
	st := d.s.stream(id, device, 0)
	record := dev.DeviceRecord
	st.post(func() { st.heard(record, gkrp.Heard{Message: m, Payload: r.Payload}) })
}

// refuse tells of a message that is not what it should be, once a minute of a device. Only
// the device itself, or a broker that damages, can cause it: it must not fill the audit
// trail.
func (d *door) refuse(device gk.DeviceID, id gk.StreamID, err error) {
	now := d.s.now()
	d.mu.Lock()
	dev := d.devices[device]
	tell := dev != nil && (dev.told.IsZero() || now.Sub(dev.told) >= noiseEvery)
	if tell {
		dev.told = now
	}
	d.mu.Unlock()
	if !tell {
		return
	}
	d.s.log.Warn("message refused", "device", device, "stream", id, "error", err)
	d.s.tell(gk.Event{Kind: gk.EventOutsider, Device: device, Stream: id, Detail: map[string]string{"cause": "message refused"}})
}

// allow takes from the rate of a topic. Topics of streams that the device does not have
// share one, so that messages on them, which anybody at a foreign broker can send, take
// nothing from the device's own.
func (d *door) allow(dev *enrolled, id gk.StreamID) bool {
	if !slices.Contains(dev.Streams, id) {
		id = ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := dev.rates[id]
	if l == nil {
		l = rate.NewLimiter(topicRate, topicBurst)
		dev.rates[id] = l
	}
	return l.AllowN(d.s.now(), 1)
}

// forget has a device's record asked for anew.
func (d *door) forget(id gk.DeviceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dev := d.devices[id]; dev != nil {
		stale := *dev
		stale.fetched = time.Time{}
		d.devices[id] = &stale
	}
}

// lookup gives the enrolment record of a device, or nil when it has none.
func (d *door) lookup(ctx context.Context, id gk.DeviceID) *enrolled {
	now := d.s.now()
	d.mu.Lock()
	dev := d.devices[id]
	age := recordMaxAge
	if dev != nil {
		age = now.Sub(dev.fetched)
	}
	refresh := age >= recordFresh && age < recordMaxAge && !dev.asked
	if refresh {
		dev.asked = true
	}
	d.mu.Unlock()
	if refresh {
		d.s.beside(func() {
			d.fetch(ctx, id, dev)
			d.mu.Lock()
			defer d.mu.Unlock()
			dev.asked = false
		})
	}
	if age < recordMaxAge {
		return dev
	}
	return d.fetch(ctx, id, dev)
}

// fetch asks for a device's record anew; dev is what was known, or nil.
func (d *door) fetch(ctx context.Context, id gk.DeviceID, dev *enrolled) *enrolled {
	fetched := d.s.now()
	ctx, cancel := d.s.cfg.Host.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := bus.KMSDevice.Do(ctx, d.s.conn, bus.KMSDeviceRequest{Device: id})
	if err != nil {
		if bus.CodeOf(err) == bus.CodeNotFound {
			d.mu.Lock()
			delete(d.devices, id)
			d.mu.Unlock()
			return nil
		}
		return dev // the key management service is away: what was known holds
	}
	v, err := d.s.cfg.Verifier(r.Public)
	if err != nil {
		d.s.log.Error("enrolment record has no usable key", "device", id, "error", err)
		return nil
	}
	fresh := &enrolled{DeviceRecord: r, verifier: v, fetched: fetched, rates: map[gk.StreamID]*rate.Limiter{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	if dev != nil {
		fresh.rates, fresh.told = dev.rates, dev.told
	}
	if now := d.devices[id]; now != nil && now != dev && now.fetched.IsZero() {
		fresh.fetched = now.fetched // it was forgotten while this was on its way
	}
	d.devices[id] = fresh
	return fresh
}
