package app

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

var nightStreams = flag.Int("nights", 4, "streams of BenchmarkNight")

// BenchmarkNight is the search of a night for one stream after the other, through the
// service as serve puts it together: from a day of scores in 288 sealed stretches, which
// are read from JetStream and opened by key management, with anomalies made in the
// windows that were recorded, to the record that is written. The scores are those of the
// real engine on the streams' recordings, again and again.
//
// Processor time is the process's, less what the streams take meanwhile.
func BenchmarkNight(b *testing.B) {
	if b.N > 1 {
		b.Skip("it is one run: -benchtime 1x")
	}
	f := newFleet(b, *nightStreams)
	defer f.end()
	f.startProcessing()
	f.sendDevices()
	f.until("mature profiles", 10*time.Minute, func() bool { return f.mature() >= f.count })
	nc, err := f.node.connect(bus.RoleProcessing)
	f.must(err)
	defer nc.Close()
	kv, err := f.node.openStore(nc, bus.BucketProcessing, 1)
	f.must(err)
	bytes := f.writeDay(bus.NewNATS(nc), kv)
	recorded := func() int {
		all, err := kv.List(b.Context(), "windows")
		f.must(err)
		return len(all)
	}
	for began := time.Now(); recorded() < f.count && time.Since(began) < 2*time.Minute; {
		time.Sleep(time.Second)
	}
	f.note("recordings/stream", float64(recorded())/float64(f.count))

	began, used := time.Now(), cpu()
	time.Sleep(10 * time.Second)
	usual := (cpu() - used).Seconds() / time.Since(began).Seconds()
	api, err := f.node.connect(bus.RoleAPI)
	f.must(err)
	defer api.Close()
	before := f.size()
	var hours, longest float64
	began, used = time.Now(), cpu()
	for _, p := range f.standIn.order {
		start, cost := time.Now(), cpu()
		i, err := bus.ProcessingTuning.Do(b.Context(), bus.NewNATS(api), bus.TuningRequest{Stream: p.id, Do: bus.TuningApply, By: "bench"})
		if bus.CodeOf(err) != bus.CodeConflict { // of one that changes nothing
			f.must(err)
		}
		longest = max(longest, (cpu()-cost).Seconds()-usual*time.Since(start).Seconds())
		if i.Proposal != nil {
			hours += i.Proposal.Now.Hours
		}
	}
	took := (cpu() - used).Seconds() - usual*time.Since(began).Seconds()
	n := float64(f.count)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f.note("CPU-s/stream", took/n)
	f.note("CPU-s/longest", longest)
	f.note("s/stream", time.Since(began).Seconds()/n)
	f.note("%core/1000-streams-a-day", 100*1000*took/n/86400)
	f.note("kept-B/stream-s", float64(bytes)/n/86400)
	f.note("quiet-h/stream", hours/n)
	f.note("RSS-MiB-before", float64(before.rss)/(1<<20))
	f.note("RSS-MiB-peak", peak(b))
}

// writeDay writes a day of scores of every stream, and gives their bytes as they stand
// in the store.
func (f *fleet) writeDay(conn bus.Conn, kv store.KV) (bytes int) {
	const chunk = 5 * time.Minute
	first := time.Now().Add(-24 * time.Hour).Truncate(chunk).Add(chunk)
	scored := map[string][]scores{}
	ctx := context.Background()
	for _, p := range f.standIn.order {
		key := fmt.Sprintf("%p", p.source.windows)
		if scored[key] == nil {
			scored[key] = p.source.scores(f.b)
		}
		all := scored[key]
		for i := range int(24*time.Hour/chunk) - 1 {
			t := &tune.Trace{Layout: all[0].layout, From: first.Add(time.Duration(i) * chunk)}
			for hop := range int(chunk / feature.Hop) {
				t.Add(all[(i*int(chunk/feature.Hop)+hop)%len(all)].levels, 0)
			}
			content, err := t.Append(nil)
			f.must(err)
			version := uint64(t.From.Unix())
			rep, err := bus.KMSSeal.Do(ctx, conn, bus.SealRequest{Place: bus.SealPlace{Kind: bus.SealedScores, Stream: p.id, Version: version}, Content: content})
			f.must(err)
			value, err := cbor.Marshal(struct {
				Term    uint64 `cbor:"1,keyasint"`
				Version uint64 `cbor:"2,keyasint"`
				Content []byte `cbor:"3,keyasint"`
			}{1, version, rep.Sealed})
			f.must(err)
			_, err = kv.Put(ctx, fmt.Sprintf("scores.%s.%d", p.id, version/uint64(chunk/time.Second)%288), value)
			f.must(err)
			bytes += len(value)
		}
	}
	return bytes
}

// scores are what the detectors say of one window.
type scores struct {
	layout *tune.Layout
	levels []episode.Level
}

// scores has the engine learn the beginning of a recording and judge the rest.
func (r recorded) scores(t testing.TB) (all []scores) {
	e := detect.NewEngine(r.form, detect.Settings{})
	var w feature.Window
	learn := int(*fleetLearn / feature.Hop)
	var layout *tune.Layout
	for i, b := range r.windows {
		if err := w.Decode(b); err != nil {
			t.Fatal(err)
		}
		e.Observe(&w)
		if i == learn {
			e.Settle()
			e = detect.ResumeModes([]detect.Mode{{Name: "first", Anchor: e.Profile()}}, 0, detect.Settings{})
		}
		if i <= learn {
			continue
		}
		if layout == nil {
			kinds, path := detect.Accusing(e.Evidence())
			layout = &tune.Layout{Kinds: kinds, Path: path}
		}
		all = append(all, scores{layout, detect.Levels(nil, e.Evidence())})
	}
	return all
}

// peak is the most memory that the process ever had, in MiB.
func peak(t testing.TB) float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var kib float64
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib / 1024
}
