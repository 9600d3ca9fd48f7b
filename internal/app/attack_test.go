package app

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/attack"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// scene is the assembled product on real sockets, with a relay in the media path
// where an attacker may stand.
type scene struct {
	t     *testing.T
	node  *Node
	relay *media.Impairment
	// hand is who stands in the path; nil lets everything pass.
	hand atomic.Pointer[func(pkt []byte, forward func(pkt []byte))]

	mu        sync.Mutex
	delivered map[gk.StreamID][]packet
	events    []gk.Event
}

// freeUDP finds a port for the transport, which the relay has to know before.
func freeUDP() (netip.AddrPort, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return netip.AddrPort{}, err
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), c.Close()
}

// packet is what entered or left the product under an index.
type packet struct {
	index   gk.Index
	payload []byte
}

func newScene(t *testing.T, change ...func(*Config)) *scene {
	t.Helper()
	s := &scene{t: t, delivered: map[gk.StreamID][]packet{}}
	target, err := freeUDP()
	if err != nil {
		t.Fatal(err)
	}
	if s.relay, err = media.NewImpairment("127.0.0.1:0", target, media.ImpairConfig{}, nil); err != nil {
		t.Fatal(err)
	}
	s.relay.Intercept(func(pkt []byte, forward func([]byte)) {
		if hand := s.hand.Load(); hand != nil {
			(*hand)(pkt, forward)
			return
		}
		forward(pkt)
	})
	cfg := testConfig(t)
	cfg.MediaListen = target.String()
	cfg.RotateEvery = time.Hour
	for _, f := range change {
		f(&cfg)
	}
	s.node, err = Start(t.Context(), cfg, Options{
		Log: slog.New(slog.DiscardHandler), Version: "test", MediaAdvertise: s.relay.Addr().String(),
		Tap: func(id gk.StreamID, i gk.Index, payload []byte) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.delivered[id] = append(s.delivered[id], packet{i, bytes.Clone(payload)})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	parts := newStages()
	parts.start("services", s.node.Run)
	parts.start("media path", s.relay.Run)
	t.Cleanup(func() {
		if err := parts.stop(); err != nil {
			t.Error(err)
		}
	})
	if err := s.node.Hear(func(e gk.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

// told gives the events of a kind about a stream; of all streams where id is "".
func (s *scene) told(kind gk.EventKind, id gk.StreamID) (out []gk.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == kind && (id == "" || e.Stream == id) {
			out = append(out, e)
		}
	}
	return out
}

func (s *scene) got(id gk.StreamID) []packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delivered[id][:len(s.delivered[id]):len(s.delivered[id])]
}

// status is the transport's word of a stream.
func (s *scene) status(id gk.StreamID) (st bus.StreamStatus) {
	for _, st = range s.node.media.Status(time.Now()) {
		if st.Stream == id {
			return st
		}
	}
	s.t.Errorf("stream %s is not at the transport", id)
	return st
}

// sceneWait is when a test gives up. It decides nothing else.
const sceneWait = 2 * time.Minute

func (s *scene) until(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(sceneWait); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("waited in vain for %s: %+v, outsiders %v, events %+v", what, s.node.media.Status(time.Now()), s.node.media.Outsiders(), s.events)
		}
	}
}

// camera is a device that sends a steady stream of packets no two of which are
// alike, and loses its keys to whoever asks.
type camera struct {
	s    *scene
	id   gk.StreamID
	stop context.CancelFunc
	done chan error

	mu     sync.Mutex
	sealed []packet
	stolen []attack.Stolen
}

// lineRate is what the camera sends, in bits a second of payload.
const lineRate = 4_000_000

func (s *scene) camera(name string) *camera {
	s.t.Helper()
	return s.film(name, &unlike{steady: steady{every: 1316 * 8 * time.Second / lineRate}, dice: rand.NewChaCha8([32]byte{1})})
}

// film is a camera with another source.
func (s *scene) film(name string, source device.Source) *camera {
	s.t.Helper()
	id, state := s.node.join(s.t, name)
	courier, err := device.Connect(s.t.Context(), id, startTimeout, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	c := &camera{s: s, id: gk.StreamID(name), done: make(chan error, 1)}
	agent, err := device.New(device.Config{
		Identity: id, State: state, Streams: []device.StreamConfig{{Source: source, Tap: c.tap}}, OnKey: c.lose,
	}, courier)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	go func() {
		err := agent.Run(ctx)
		courier.Close()
		c.done <- err
	}()
	s.t.Cleanup(c.end)
	s.until("the first pictures", func() bool { return len(s.got(c.id)) > 200 })
	return c
}

// end stops the camera; what it sent has then had time to arrive.
func (c *camera) end() {
	if c.stop == nil {
		return
	}
	c.stop()
	c.stop = nil
	if err := <-c.done; err != nil {
		c.s.t.Error(err)
	}
}

func (c *camera) tap(i gk.Index, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealed = append(c.sealed, packet{i, bytes.Clone(payload)})
}

func (c *camera) lose(_ gk.StreamID, ssrc uint32, epoch gk.Epoch, key keyring.MediaKey) {
	k, err := attack.Steal(ssrc, epoch, key)
	if err != nil {
		c.s.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stolen = append(c.stolen, k)
}

// key is the key in use.
func (c *camera) key() attack.Stolen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stolen[len(c.stolen)-1]
}

func (c *camera) sent() []packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sealed[:len(c.sealed):len(c.sealed)]
}

// unlike is a steady source whose packets differ.
type unlike struct {
	steady
	dice *rand.ChaCha8
}

func (u *unlike) Read(ctx context.Context, b *device.Batch) error {
	err := u.steady.Read(ctx, b)
	for i := range b.Units {
		for p := 4; p < len(b.Units[i].Payload); p += media.TSPacketSize {
			_, _ = u.dice.Read(b.Units[i].Payload[p : p+media.TSPacketSize-4]) // never fails
		}
	}
	return err
}

// aside is a place beside the path: another socket that reaches the transport.
func (s *scene) aside() func(pkt []byte) error {
	s.t.Helper()
	sock, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{SendBuffer: 4 << 20})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { sock.Close() })
	snd := sock.NewSender(netip.MustParseAddrPort(s.node.cfg.MediaListen), 1)
	return func(pkt []byte) error {
		_, err := snd.Send([][]byte{pkt})
		return err
	}
}

// TestStolenKeyFromThePath and TestStolenKeyFromAside put a thief with the live
// media key against the assembled product, in the source's own packet stream and
// on another socket. Whatever he does, the key changes, and from the first index
// of the new one what is delivered is the source's, whole and alone.
func TestStolenKeyFromThePath(t *testing.T) { stolenKey(t, attack.Modes, true) }

// TestStolenKeyFromAside: see [TestStolenKeyFromThePath].
func TestStolenKeyFromAside(t *testing.T) {
	stolenKey(t, []attack.Mode{attack.Inject, attack.Replay, attack.Leap, attack.FirstWriter}, false)
}

func stolenKey(t *testing.T, modes []attack.Mode, inPath bool) {
	if testing.Short() {
		t.Skip("takes seconds for each way to use a stolen key")
	}
	s := newScene(t)
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			c := s.camera("cam-" + string(mode))
			var aside func([]byte) error
			if !inPath {
				aside = s.aside()
			}
			key := c.key()
			thief, err := attack.New(mode, key, aside)
			if err != nil {
				t.Fatal(err)
			}
			hand := thief.Intercept
			s.hand.Store(&hand)
			defer s.hand.Store(nil)
			s.until("a change of the key", func() bool { return len(s.rotations(c.id)) > 0 })
			at := len(c.sent())
			s.until("more pictures", func() bool { return len(c.sent()) > at+800 })
			stats, err := thief.Stats()
			if err != nil {
				t.Fatal(err)
			}
			s.hand.Store(nil)
			status := s.status(c.id)
			c.end()
			done := s.rotations(c.id)
			if len(done) != 1 || done[0].Reason != gk.ReasonProof || done[0].Epoch != key.Epoch+1 {
				t.Errorf("one stolen key led to %+v", done)
			}
			if n := len(s.told(gk.EventIdentity, c.id)) + len(s.told(gk.EventSessionRejected, c.id)); n != 0 {
				t.Errorf("a thief of media caused %d holds", n)
			}
			first := done[0].Index
			displaced, missing, forged := compare(t, c.sent(), s.got(c.id), first)
			var opened time.Time
			for _, e := range s.told(gk.EventEpochFirstPacket, c.id) {
				if e.Epoch == done[0].Epoch {
					opened = e.At
				}
			}
			evidence := ""
			if p := s.told(gk.EventProof, c.id); len(p) > 0 {
				evidence = p[0].Detail["evidence"]
			}
			t.Logf("first packet of the thief to: proof decided %v, first packet of the new key %v, rotation confirmed %v; evidence %q; thief sent %d, of which %d were delivered before the switch; of the source's before it %d displaced, %d missing; the transport refused %v and by the device's reports took %d that were not the source's",
				done[0].At.Add(-done[0].Took).Sub(stats.Began).Round(time.Millisecond/10), opened.Sub(stats.Began).Round(time.Millisecond/10), done[0].At.Sub(stats.Began).Round(time.Millisecond/10),
				evidence, stats.Sent, forged, displaced, missing, status.Dropped, status.Foreign)
			if d := done[0].At.Sub(stats.Began); d > 20*time.Second {
				t.Errorf("the key was changed after %v", d)
			}
		})
	}
}

// rotations are the completed ones of a stream after its start.
func (s *scene) rotations(id gk.StreamID) (out []gk.Event) {
	for _, e := range s.told(gk.EventRotationDone, id) {
		if e.Reason != gk.ReasonStart {
			out = append(out, e)
		}
	}
	return out
}

// compare holds what was delivered against what the source sealed. From first on
// both must be the same, byte for byte. Before it, displaced counts the source's
// packets in whose place another was delivered, missing those in whose place
// nothing was, and forged what was delivered and not the source's.
func compare(t *testing.T, sealed, delivered []packet, first gk.Index) (displaced, missing, forged int) {
	t.Helper()
	last := sealed[len(sealed)-1].index
	want := sealed[0].index
	begin := -1
	for i, p := range delivered {
		if p.index == first {
			begin = i
		}
	}
	if begin < 0 {
		t.Fatalf("nothing was delivered at index %d, where the new key begins", first)
	}
	source := map[gk.Index][]byte{}
	for _, p := range sealed {
		source[p.index] = p.payload
	}
	genuine, taken := map[gk.Index]bool{}, map[gk.Index]bool{}
	for _, p := range delivered[:begin] {
		if bytes.Equal(source[p.index], p.payload) {
			genuine[p.index] = true
		} else {
			forged++
			taken[p.index] = true
		}
	}
	for i := want; i < first; i++ {
		switch {
		case taken[i]:
			displaced++
		case !genuine[i]:
			missing++
		}
	}
	next := first
	for _, p := range delivered[begin:] {
		if p.index != next || !bytes.Equal(p.payload, source[next]) {
			t.Fatalf("index %d was delivered where the source's %d was to come, %d after the key's first", p.index, next, next-first)
		}
		next++
	}
	if next != last+1 {
		t.Errorf("delivery ends at index %d; the source sealed up to %d", next-1, last)
	}
	return displaced, missing, forged
}

// TestForgedFloodAndReplay: an outsider without a key sends ten times the line's
// rate of well-formed packets under the source's SSRC and epoch, and then all
// that he recorded once more. Nothing is lost, no key changes, nobody is held,
// and the operator is told once.
func TestForgedFloodAndReplay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	s := newScene(t)
	c := s.camera("cam-1")
	send := s.aside()
	var recorded [][]byte // the relay's own
	var forged, replayed atomic.Uint64
	flood := func(pkt []byte, forward func([]byte)) {
		recorded = append(recorded, bytes.Clone(pkt))
		forward(pkt)
		fake := bytes.Clone(pkt)
		for i := range uint16(10) {
			binary.BigEndian.PutUint16(fake[2:], binary.BigEndian.Uint16(pkt[2:])+i)
			fake[100] ^= byte(i + 1)
			if err := send(fake); err != nil {
				t.Error(err)
			}
			forged.Add(1)
		}
	}
	s.hand.Store(&flood)
	at := len(c.sent())
	s.until("the flood", func() bool { return len(c.sent()) > at+2000 })
	replay := func(pkt []byte, forward func([]byte)) {
		forward(pkt)
		for range 10 {
			if len(recorded) > 0 {
				if err := send(recorded[0]); err != nil {
					t.Error(err)
				}
				recorded = recorded[1:]
				replayed.Add(1)
			}
		}
	}
	s.hand.Store(&replay)
	at = len(c.sent())
	s.until("the replay", func() bool { return len(c.sent()) > at+400 })
	s.hand.Store(nil)
	dropped := s.status(c.id).Dropped
	c.end()
	sealed, got := c.sent(), s.got(c.id)
	if len(got) != len(sealed) {
		t.Errorf("%d packets delivered, %d sealed", len(got), len(sealed))
	}
	for i := range min(len(got), len(sealed)) {
		if got[i].index != sealed[i].index || !bytes.Equal(got[i].payload, sealed[i].payload) {
			t.Fatalf("delivery %d is index %d, the source's is %d", i, got[i].index, sealed[i].index)
		}
	}
	if n := s.rotations(c.id); len(n) != 0 {
		t.Errorf("an outsider caused %+v", n)
	}
	for _, kind := range []gk.EventKind{gk.EventProof, gk.EventIdentity, gk.EventBudgetSpent, gk.EventSessionRejected} {
		if e := s.told(kind, ""); len(e) != 0 {
			t.Errorf("an outsider caused %+v", e)
		}
	}
	if e := s.told(gk.EventOutsider, ""); len(e) != 1 {
		t.Errorf("the operator was told %d times: %+v", len(e), e)
	}
	if e := s.told(gk.EventAlertOpened, ""); len(e) != 1 || e[0].Detail["class"] != string(bus.ClassNoise) {
		t.Errorf("alerts of a flood and a replay: %+v", e)
	}
	t.Logf("source sealed %d, delivered %d; forged %d, replayed %d; dropped %v", len(sealed), len(got), forged.Load(), replayed.Load(), dropped)
}
