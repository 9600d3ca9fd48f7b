package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/nats-io/nats-server/v2/server"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

var (
	fleetStreams  = flag.Int("streams", 50, "streams of BenchmarkFleet")
	fleetLearn    = flag.Duration("learn", 30*time.Second, "what BenchmarkFleet's service learns of a source")
	fleetSoak     = flag.Duration("soak", 15*time.Second, "how long BenchmarkFleet measures")
	fleetCaptures = flag.String("captures", "../synth/captures/dev3_b000[25].pcap.gz", "recordings that BenchmarkFleet's streams send, one after the other")
	fleetForeign  = flag.String("foreign", "../synth/captures/dev3_b000[03].pcap.gz", "recordings that replace them, in the same order")
)

// fleetSwaps is how many streams have their source replaced, one after the other.
const fleetSwaps = 20

// BenchmarkFleet is one processing service with many streams, as serve puts it together:
// embedded bus, MQTT broker with a connection of every device, key management and store
// on the disk. The devices are another process, with sessions opened by the real
// protocol and a signed REPORT a second each. Recorded windows come four times a second
// of each stream, from where the transport would tell them.
//
// Processor time is this process's, less what it takes to put the same messages onto a
// bus where nobody hears them.
func BenchmarkFleet(b *testing.B) {
	if b.N > 1 {
		b.Skip("it is one run: -benchtime 1x")
	}
	f := newFleet(b, *fleetStreams)
	defer f.end()
	empty := f.size()
	f.startProcessing()
	f.sendDevices()
	began, used := time.Now(), cpu()
	f.until("sessions", 10*time.Minute, func() bool { return f.counted(gk.EventSessionStarted) >= f.count })
	f.note("s/all-sessions", time.Since(began).Seconds())
	f.note("CPU-ms/session", ms(cpu()-used)/float64(f.count))
	f.until("mature profiles", 10*time.Minute+*fleetLearn, func() bool { return f.mature() >= f.count })
	full := f.size()
	f.measure("", *fleetSoak)
	mature := f.size()
	n := float64(f.count)
	f.note("heap-KiB/stream", float64(mature.heap-empty.heap)/n/1024)
	f.note("RSS-KiB/stream", float64(mature.rss-empty.rss)/n/1024)
	f.note("learned-heap-KiB/stream", float64(full.heap-empty.heap)/n/1024)
	f.note("goroutines/stream", float64(mature.goroutines-empty.goroutines)/n)
	f.swap()
	f.restart()
	f.measure("again-", *fleetSoak)
}

// fleet is a node whose processing service is started and stopped by itself, its
// devices and the stand-in for its transport.
type fleet struct {
	b       *testing.B
	count   int // of streams
	node    *Node
	standIn *standIn
	cancel  context.CancelFunc
	devices *exec.Cmd
	stop    func() // the processing service

	puts atomic.Uint64 // of processing, to its store
	mu   sync.Mutex
	of   map[string]int // puts by the first token of their key

	alerts map[string]int // opened, by class and kind

	kinds    map[gk.EventKind]int
	rotated  map[gk.StreamID]gk.Event
	alerted  map[gk.StreamID]time.Time
	stages   map[gk.StreamID]bus.Stage
	judged   map[gk.StreamID]time.Time // first since the service started
	reported map[gk.StreamID]bool      // since the service started
	phase    map[gk.StreamID]int       // windows of which scores are told
	lags     []time.Duration
}

func newFleet(b *testing.B, count int) *fleet {
	cfg := testConfig(b)
	cfg.LearnFor, cfg.ProvisionalAfter = *fleetLearn, *fleetLearn/4
	f := &fleet{b: b, count: count, of: map[string]int{}, alerts: map[string]int{}, kinds: map[gk.EventKind]int{}, rotated: map[gk.StreamID]gk.Event{}, alerted: map[gk.StreamID]time.Time{}}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n := &Node{cfg: cfg, opts: Options{Log: log, Version: "bench", Untold: true}, stages: newStages(), starting: b.Context()}
	f.node = n
	for _, step := range []func(context.Context) error{n.openData, n.openSockets, n.startBus, n.startAudit, n.startKMS, n.openGate, n.startAPI} {
		f.must(step(b.Context()))
	}
	own, foreign := captures(b, *fleetCaptures), captures(b, *fleetForeign)
	f.standIn = newStandIn(b, n, func(i int) recorded { return own[i%len(own)] })
	f.standIn.foreign = func(i int) recorded { return foreign[i%len(foreign)] }
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go f.standIn.run(ctx)
	nc, err := n.connect(bus.RoleAPI)
	f.must(err)
	_, err = bus.Events.Hear(bus.NewNATS(nc), f.event)
	f.must(err)
	return f
}

func (f *fleet) must(err error) {
	if err != nil {
		f.b.Helper()
		f.b.Fatal(err)
	}
}

func (f *fleet) end() {
	if f.devices != nil {
		_ = f.devices.Process.Kill()
		_ = f.devices.Wait()
	}
	if f.stop != nil {
		f.stop()
	}
	f.cancel()
	if err := f.node.stages.stop(); err != nil {
		f.b.Error(err)
	}
}

// startProcessing is [Node.startProcessing] for a service that can be stopped alone.
func (f *fleet) startProcessing() {
	n := f.node
	nc, err := n.connect(bus.RoleProcessing)
	f.must(err)
	p := processor{cfg: n.processingConfig(), conn: &overheard{bus.NewNATS(nc), f}}
	p.creds, err = n.certify(f.b.Context(), nc, "processing")
	f.must(err)
	p.signer, err = gkrp.NewSigner(p.creds.key.(ed25519.PrivateKey))
	f.must(err)
	kv, err := n.openStore(nc, bus.BucketProcessing, 1)
	f.must(err)
	p.kv = &countedKV{kv, f}
	courier, err := n.dialBroker(f.b.Context(), p.creds)
	f.must(err)
	f.mu.Lock()
	f.stages, f.judged, f.reported, f.phase = map[gk.StreamID]bus.Stage{}, map[gk.StreamID]time.Time{}, map[gk.StreamID]bool{}, map[gk.StreamID]int{}
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.runProcessing(ctx, p, courier) }()
	f.stop = func() {
		cancel()
		f.must(<-ended)
		nc.Close()
		f.stop = nil
	}
}

// sendDevices enrols devices and starts the process that they are.
func (f *fleet) sendDevices() {
	nc, err := f.node.connect(bus.RoleAPI)
	f.must(err)
	defer nc.Close()
	conn := bus.NewNATS(nc)
	all := make([]enlisted, f.count)
	for i := range all {
		e := enlisted{Device: gk.DeviceID(fmt.Sprintf("cam-%04d", i)), Broker: f.node.mqtt}
		_, e.Key, err = ed25519.GenerateKey(nil)
		f.must(err)
		csr, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(e.Device)}}, e.Key)
		f.must(err)
		secret := make([]byte, 16)
		_, _ = rand.Read(secret) // never fails
		hash := sha256.Sum256(secret)
		_, err = bus.KMSEnroll.Do(f.b.Context(), conn, bus.EnrollRequest{Device: e.Device, TTL: time.Hour, Hash: hash[:]})
		f.must(err)
		joined, err := bus.KMSJoin.Do(f.b.Context(), conn, bus.JoinRequest{Device: e.Device, Hash: hash[:], CSR: csr})
		f.must(err)
		e.Cert, e.CA, e.KMSPublic = joined.Certificate, joined.CA, joined.KMSPublic
		all[i] = e
	}
	path := filepath.Join(f.b.TempDir(), "fleet.json")
	b, err := json.Marshal(all)
	f.must(err)
	f.must(os.WriteFile(path, b, 0o600))
	f.devices = exec.Command(os.Args[0])
	f.devices.Env = append(os.Environ(), fleetVariable+"="+path)
	f.devices.Stdout, f.devices.Stderr = os.Stderr, os.Stderr
	f.devices.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a share of the machine of their own
	_, err = f.devices.StdinPipe()                             // it ends when we do
	f.must(err)
	f.must(f.devices.Start())
}

func (f *fleet) until(what string, patience time.Duration, done func() bool) {
	f.b.Helper()
	for began := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.b.Fatalf("no %s within %v: %v", what, patience, f.kinds)
		}
	}
}

func (f *fleet) note(unit string, v float64) { f.b.ReportMetric(v, unit) }

func (f *fleet) event(e gk.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kinds[e.Kind]++
	switch e.Kind {
	case gk.EventRotationDone:
		if e.Reason == gk.ReasonSource && e.Took > 0 {
			f.rotated[e.Stream] = e
		}
	case gk.EventAlertOpened:
		f.alerted[e.Stream] = e.At
		f.alerts[e.Detail["class"]+" "+e.Detail["kind"]]++
	}
}

func (f *fleet) counted(k gk.EventKind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kinds[k]
}

func (f *fleet) mature() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.stages {
		if s == bus.StageMature {
			n++
		}
	}
	return n
}

// overheard is the connection of processing to the bus; it notes when scores and
// reports are told, which is when their windows were judged and their devices heard.
type overheard struct {
	bus.Conn
	f *fleet
}

func (o *overheard) Publish(subject string, data []byte) error {
	switch subject {
	case string(bus.ProcessingScores):
		o.f.scores(time.Now(), data)
	case string(bus.DeviceReports):
		var r struct {
			Stream gk.StreamID `cbor:"1,keyasint"`
		}
		if cbor.Unmarshal(data, &r) == nil {
			o.f.mu.Lock()
			o.f.reported[r.Stream] = true
			o.f.mu.Unlock()
		}
	}
	return o.Conn.Publish(subject, data)
}

// scores come with every fourth window of a stream. Which of them the first were for is
// taken from what was told last; where that was too late, later ones show it, because
// they cannot come before their windows.
func (f *fleet) scores(now time.Time, data []byte) {
	var s struct {
		Stream gk.StreamID `cbor:"1,keyasint"`
		Stage  bus.Stage   `cbor:"2,keyasint"`
	}
	if cbor.Unmarshal(data, &s) != nil {
		return
	}
	newest, due := f.standIn.newest(s.Stream)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stages[s.Stream] = s.Stage
	if _, known := f.judged[s.Stream]; !known {
		f.judged[s.Stream], f.phase[s.Stream] = now, newest
		return
	}
	f.phase[s.Stream] += 4
	for f.phase[s.Stream] > newest {
		f.phase[s.Stream]--
	}
	f.lags = append(f.lags, now.Sub(due(f.phase[s.Stream])))
}

// countedKV counts what is written.
type countedKV struct {
	store.KV
	f *fleet
}

func (c *countedKV) count(key string) {
	c.f.puts.Add(1)
	token, _, _ := strings.Cut(key, ".")
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.of[token]++
}

func (c *countedKV) Create(ctx context.Context, key string, v []byte) (uint64, error) {
	c.count(key)
	return c.KV.Create(ctx, key, v)
}

func (c *countedKV) Update(ctx context.Context, key string, v []byte, rev uint64) (uint64, error) {
	c.count(key)
	return c.KV.Update(ctx, key, v, rev)
}

func (c *countedKV) Put(ctx context.Context, key string, v []byte) (uint64, error) {
	c.count(key)
	return c.KV.Put(ctx, key, v)
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it takes no other argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type size struct {
	heap, rss  int64
	goroutines int
}

func (f *fleet) size() size {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b, err := os.ReadFile("/proc/self/statm")
	f.must(err)
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	f.must(err)
	return size{int64(m.HeapAlloc), pages * int64(os.Getpagesize()), runtime.NumGoroutine()}
}

// stored is how many writes all stores have taken.
func (f *fleet) stored() (n uint64) {
	z, err := f.node.broker.server.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	f.must(err)
	for _, a := range z.AccountDetails {
		for _, s := range a.Streams {
			n += s.State.LastSeq
		}
	}
	return n
}

// measure notes what the service takes and how late it is, for so long.
func (f *fleet) measure(prefix string, long time.Duration) {
	f.mu.Lock()
	f.lags, f.of, f.alerts = nil, map[string]int{}, map[string]int{}
	alarms := f.kinds[gk.EventAlertOpened]
	f.mu.Unlock()
	began, used, puts, stored, told := time.Now(), cpu(), f.puts.Load(), f.stored(), f.standIn.windows()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var most, last uint64
	for last = f.stored(); time.Since(began) < long; {
		time.Sleep(time.Second)
		now := f.stored()
		most, last = max(most, now-last), now
	}
	took := time.Since(began).Seconds()
	runtime.ReadMemStats(&after)
	busy := cpu() - used
	f.mu.Lock()
	defer f.mu.Unlock()
	windows := float64(f.standIn.windows() - told)
	f.note(prefix+"%core", 100*busy.Seconds()/took)
	f.note(prefix+"windows/s", windows/took)
	f.note(prefix+"lag-p50-ms", ms(quantile(f.lags, 0.5)))
	f.note(prefix+"lag-p99-ms", ms(quantile(f.lags, 0.99)))
	f.note(prefix+"writes/s", float64(f.puts.Load()-puts)/took)
	f.note(prefix+"all-writes/s", float64(f.stored()-stored)/took)
	f.note(prefix+"most-writes/s", float64(most))
	f.note(prefix+"allocs/window", float64(after.Mallocs-before.Mallocs)/windows)
	f.note(prefix+"alerts", float64(f.kinds[gk.EventAlertOpened]-alarms))
	f.b.Logf("%s%.0f s: writes %v, events %v, alerts %v", prefix, took, f.of, f.kinds, f.alerts)
}

// swap replaces sources, one after the other, and notes when their keys are new.
func (f *fleet) swap() {
	var alarm, done, took []time.Duration
	for i := range min(fleetSwaps, f.count) {
		p := f.standIn.replace(i * f.count / min(fleetSwaps, f.count))
		f.until("rotation of "+string(p.id), time.Minute, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			e, ok := f.rotated[p.id]
			if ok {
				since := f.standIn.replaced(p)
				alarm, done, took = append(alarm, f.alerted[p.id].Sub(since)), append(done, e.At.Sub(since)), append(took, e.Took)
			}
			return ok
		})
	}
	f.note("swap-to-alarm-p50-ms", ms(quantile(alarm, 0.5)))
	f.note("swap-to-rotated-p50-ms", ms(quantile(done, 0.5)))
	f.note("swap-to-rotated-max-ms", ms(slices.Max(done)))
	f.note("rotation-p50-ms", ms(quantile(took, 0.5)))
	f.note("rotation-max-ms", ms(slices.Max(took)))
}

// restart stops the service, measures what everything else takes, and notes how long
// the next one needs.
func (f *fleet) restart() {
	f.stop()
	time.Sleep(time.Second)
	began, used := time.Now(), cpu()
	time.Sleep(*fleetSoak / 3)
	f.note("%core-without", 100*(cpu()-used).Seconds()/time.Since(began).Seconds())
	began, used = time.Now(), cpu()
	f.startProcessing()
	all := func(n func() int) func() bool {
		return func() bool { f.mu.Lock(); defer f.mu.Unlock(); return n() >= f.count }
	}
	f.until("judgement of all streams", 5*time.Minute, all(func() int { return len(f.judged) }))
	f.note("restart-s/judging", time.Since(began).Seconds())
	f.note("restart-CPU-s", (cpu() - used).Seconds())
	f.until("report of all devices", 5*time.Minute, all(func() int { return len(f.reported) }))
	f.note("restart-s/reports", time.Since(began).Seconds())
	if f.mature() < f.count {
		f.b.Error("profiles were lost")
	}
}
