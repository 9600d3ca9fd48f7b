package processing

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// reels joins the parts that are to be stored, by alert: of a part, the last counts.
func (s *stage) reels() map[uint64]*reel {
	s.t.Helper()
	latest := map[uint64][]*reel{}
	parts, _ := s.b.takeReels()
	for _, p := range parts {
		r, err := readReel(p.content)
		if err != nil || len(p.content) > bus.MaxSealed {
			s.t.Fatalf("part %d of %d, %d bytes: %v", p.part, p.number, len(p.content), err)
		}
		all := latest[p.number]
		if p.part == len(all) {
			all = append(all, nil)
		}
		all[p.part] = r
		latest[p.number] = all
	}
	out := map[uint64]*reel{}
	for number, all := range latest {
		for i, r := range all[1:] {
			if !all[0].goOn(r) {
				s.t.Errorf("part %d of %d does not go on at %v: %v", i+1, number, all[0].end(), r.from)
			}
		}
		out[number] = all[0]
	}
	return out
}

// TestWindowsAroundAnAlertAreKept in full, from before it to after it, early and as a
// whole; judged again by the same profile they say what the engine said.
func TestWindowsAroundAnAlertAreKept(t *testing.T) {
	s := learned(t)
	s.play(2 * time.Minute)
	s.b.takeContexts()
	s.e.style = foreign
	s.play(12 * time.Second)
	a := s.b.alerts.all[0]
	lead := before + s.b.cfg.Tuning.Around
	early := s.reels()[1]
	if early == nil || early.from.Sub(a.Opened.Add(-lead)).Abs() > time.Second || early.end().Before(a.Opened.Add(contextSoon)) {
		t.Fatalf("while the alert of %v is open: %+v", a.Opened, early)
	}
	s.e.style = own
	s.play(2 * time.Minute)
	scores := s.b.takeContexts()[1].trace
	parts, _ := s.b.takeReels()
	s.b.tuned.films.parts = parts
	if len(parts) != 2 {
		t.Errorf("%d parts: %+v", len(parts), parts)
	}
	whole, closed := s.reels()[1], s.b.alerts.all[0].Closed
	if end := closed.Add(after + s.b.cfg.Tuning.Around); !whole.from.Equal(early.from) || whole.end().Sub(end).Abs() > time.Second {
		t.Fatalf("opened %v, closed %v: kept from %v to %v", a.Opened, closed, whole.from, whole.end())
	}
	// Nothing of the source is lost: the engine says the same of them.
	live := s.b.liveView()
	replayer := tune.NewReplayer(live.layout, live.weights)
	again, err := whole.judge(live, replayer, a.Opened.Add(-before))
	if err != nil {
		t.Fatal(err)
	}
	for i := range again.Len() {
		at := scores.Index(again.At(i))
		kind, peak := replayer.Peak(again, i, i+1)
		then, was := replayer.Peak(scores, at, at+1)
		// Some detectors look back for longer than what is kept; no alarm rests on that.
		if max(peak, was) >= calmScore && (kind != then || peak != was) {
			t.Fatalf("%v after it opened: %s %.2f, and %s %.2f when it was there", again.At(i).Sub(a.Opened), kind, peak, then, was)
		}
	}
	if _, peak := replayer.Peak(again, again.Index(a.Opened), again.Len()); peak < 1 {
		t.Errorf("the greatest score of a foreign encoder is %.2f", peak)
	}
	// One that stays is cut, and not begun again; and memory is bounded meanwhile.
	s.e.style = foreign
	most := 0
	for range 40 {
		s.play(30 * time.Second)
		for _, a := range s.b.tuned.around {
			if a.film != nil {
				most = max(most, len(a.film.hops))
			}
		}
	}
	all := s.reels()
	if long := all[2].end().Sub(all[2].from); len(all) != 1 || long != contextMost || most > partHops {
		t.Errorf("of an alert that stays, %v are kept; %d alerts; %d windows in memory", long, len(all), most)
	}
	if n := len(s.b.tuned.films.recent.hops); n != hops(lead) {
		t.Errorf("%d windows wait for an alert", n)
	}
}

// TestWindowsThatNobodyWants: none are kept, and none are in memory.
func TestWindowsThatNobodyWants(t *testing.T) {
	s := learned(t)
	s.b.cfg.Tuning.Around = 0
	s.b.breakScores()
	s.e.style = foreign
	s.play(time.Minute)
	if parts, _ := s.b.takeReels(); len(parts) > 0 || len(s.b.tuned.films.recent.hops) > 0 || len(s.b.tuned.films.book.all) > 0 || len(s.b.alerts.all) == 0 {
		t.Errorf("%d parts, %+v", len(parts), s.b.tuned.films)
	}
	// What was kept before goes.
	s.b.tuned.films.book = s.b.cfg.Tuning.reelBook()
	s.b.restoreReels([]reelEntry{{Number: 1, Bytes: 5}, {Number: 2, Bytes: 5, Said: true}, {Number: 3, Gone: true}})
	if _, gone := s.b.takeReels(); !slices.Equal(gone, []uint64{3, 1, 2}) {
		t.Errorf("erased: %v", gone)
	}
}

// TestReelsAreBounded: whatever comes, there are no more alerts with windows than asked
// for, nor bytes; the oldest go first, and those that somebody spoke of after all others.
func TestReelsAreBounded(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 5))
		book := reelBook{most: 1 + rng.IntN(6), bytes: int64(1 + rng.IntN(500))}
		filmed := map[uint64]bool{}
		is := func(n uint64) bool { return filmed[n] }
		for number := uint64(1); number < 40; number++ {
			clear(filmed)
			if rng.IntN(3) == 0 {
				filmed[number-1] = true
			}
			had := slices.Clone(book.all)
			gone, ok := book.room(1, 0, is)
			var kept []reelEntry
			for _, e := range had {
				if went := slices.Contains(gone, e.Number); went && (e.Gone || filmed[e.Number]) {
					t.Fatalf("seed %d: %d went: %+v", seed, e.Number, had)
				} else if !went && !e.Gone && !filmed[e.Number] {
					kept = append(kept, e)
				}
			}
			for _, n := range gone {
				i := slices.IndexFunc(had, func(e reelEntry) bool { return e.Number == n })
				for _, k := range kept {
					if k.Said == had[i].Said && k.Number < n || had[i].Said && !k.Said {
						t.Fatalf("seed %d: %d went, %d stayed: %+v", seed, n, k.Number, had)
					}
				}
			}
			if !ok {
				continue
			}
			book.all = append(book.all, reelEntry{Number: number, Said: rng.IntN(2) == 0})
			filmed[number] = true
			more := int64(rng.IntN(200))
			if _, ok := book.room(0, more, is); ok {
				book.find(number).Bytes += more
			}
			if n, b := book.sum(); n > book.most || b > book.bytes {
				t.Fatalf("seed %d: %d alerts of %d, %d bytes of %d", seed, n, book.most, b, book.bytes)
			}
		}
	}
}

// TestWindowsKeepToTheirRoom while they come, too: what does not fit is not stored.
func TestWindowsKeepToTheirRoom(t *testing.T) {
	s := learned(t)
	s.b.tuned.films.book.bytes = 40 << 10
	s.e.style = foreign
	s.play(10 * time.Minute)
	sum, last := int64(0), map[string]int64{}
	parts, _ := s.b.takeReels()
	for _, p := range parts {
		last[fmt.Sprint(p.number, p.part)] = int64(len(p.content) + sealOverhead)
	}
	for _, n := range last {
		sum += n
	}
	if _, have := s.b.tuned.films.book.sum(); sum != have || have > 40<<10 || have < 20<<10 {
		t.Errorf("%d bytes are stored, %d are known of, 40 KiB are granted", sum, have)
	}
	if slices.ContainsFunc(s.b.tuned.around, func(a around) bool { return a.film != nil }) {
		t.Error("it goes on")
	}
	// Nor does what came before an alert take the place of what it is.
	s = learned(t)
	s.b.cfg.Tuning.Around = 2 * time.Minute
	s.b.breakScores()
	s.play(130 * time.Second)
	s.b.tuned.films.book.bytes = 32 << 10
	s.e.style = foreign
	s.play(30 * time.Second)
	if parts, gone := s.b.takeReels(); len(parts) != 1 || len(gone) > 0 || s.b.tuned.films.book.find(1) == nil {
		t.Errorf("%d parts in 32 KiB, %v is erased", len(parts), gone)
	}
}

// filmedWorld is a world with a stream that had an alert, whose windows are stored.
func filmedWorld(t *testing.T) (w *world, s *stage, parts []reelPart) {
	s = learned(t)
	s.now = time.Now().Add(-10 * time.Minute)
	s.b.breakScores()
	s.play(time.Minute)
	s.e.style = foreign
	s.play(8 * time.Second)
	s.e.style = own
	s.play(2 * time.Minute)
	contexts := s.b.takeContexts()
	parts, _ = s.b.takeReels()
	w, d := newCamera(t, testConfig())
	time.Sleep(5 * time.Second)
	d.kill()
	w.crash()
	b, err := pack(alertsRecord{Number: s.b.alerts.number, Alerts: s.b.alerts.all, Reels: s.b.tuned.films.book.all})
	if err != nil {
		t.Fatal(err)
	}
	w.seal(bus.SealedAlerts, alertsToken+".cam-1", 1000, b)
	w.learned(s)
	w.start()
	time.Sleep(5 * time.Second)
	st := w.svc.find("cam-1")
	around := contexts[len(contexts)-1]
	st.storeContext(around)
	quiet := &tune.Trace{Layout: around.trace.Layout, From: s.now.Add(-time.Hour)}
	for range hops(40 * time.Minute) {
		quiet.Add(make([]episode.Level, len(quiet.Layout.Kinds)), 0)
	}
	st.storeScores(quiet)
	for _, p := range parts {
		st.storeReel(p)
	}
	return w, s, parts
}

// learned stores the profile that a stage has.
func (w *world) learned(s *stage) {
	p := s.b.kept()
	p.Version = 1000
	b, err := packProfile(p)
	if err != nil {
		w.t.Fatal(err)
	}
	w.seal(bus.SealedProfile, profileToken+".cam-1", p.Version, b)
}

// TestWindowsAreSealed: nothing of them is in the store in the clear, and a part that was
// changed, or put in another's place, is nobody's.
func TestWindowsAreSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, parts := filmedWorld(t)
		st := w.svc.find("cam-1")
		all, err := w.records.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			for _, e := range all {
				for i := 0; i+16 <= len(p.content); i += 16 {
					if bytes.Contains(e.Value, p.content[i:i+16]) {
						t.Fatalf("%s has windows in the clear", e.Key)
					}
				}
			}
		}
		have := func() time.Duration {
			r, err := st.reel(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if r == nil {
				return 0
			}
			return r.end().Sub(r.from)
		}
		whole := have()
		first, err := w.records.Get(t.Context(), st.reelKey(1, 0))
		if err != nil || whole < 70*time.Second {
			t.Fatalf("%v are kept: %v", whole, err)
		}
		if _, err := w.records.Put(t.Context(), st.reelKey(1, 1), first.Value); err != nil {
			t.Fatal(err)
		}
		if got := have(); got != partHops*feature.Hop {
			t.Errorf("when the first part stands in the place of the second, %v are believed", got)
		}
		first.Value[len(first.Value)-1] ^= 1
		if _, err := w.records.Put(t.Context(), st.reelKey(1, 0), first.Value); err != nil {
			t.Fatal(err)
		}
		if got := have(); got != 0 {
			t.Errorf("of a part that was changed, %v are believed", got)
		}
		w.close()
	})
}

// TestWindowsOutliveCrashes: what was written before a kill is shown after it, one whose
// parts do not follow each other ends there, and what was being erased is erased; where
// the record that knows of them was spoiled, all of them are.
func TestWindowsOutliveCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, parts := filmedWorld(t)
		last := parts[len(parts)-1]
		show := func() (bus.Episode, error) {
			return bus.ProcessingEpisode.Do(t.Context(), w.memory.Conn(), bus.EpisodeRequest{Alert: "cam-1.1"})
		}
		restart := func(between func()) {
			w.crash()
			between()
			w.start()
			time.Sleep(5 * time.Second)
		}
		keys := func() int {
			all, err := w.records.List(t.Context(), reelToken)
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		restart(func() {
			if err := w.records.Erase(t.Context(), fmt.Sprintf("%s.cam-1.1-%d", reelToken, last.part)); err != nil { // it was never written
				t.Fatal(err)
			}
		})
		if e, err := show(); err != nil || len(e.Windows) != last.part*partHops {
			t.Errorf("of all parts but the last: %d windows, %v", len(e.Windows), err)
		}
		record := func(version uint64, entries ...reelEntry) {
			b, err := pack(alertsRecord{Number: 1, Reels: entries})
			if err != nil {
				t.Fatal(err)
			}
			w.seal(bus.SealedAlerts, alertsToken+".cam-1", version, b)
		}
		if keys() == 0 {
			t.Fatal("nothing is left")
		}
		restart(func() { record(2000, reelEntry{Number: 1, Gone: true}) })
		if n := keys(); n != 0 {
			t.Errorf("%d parts are there of what was being erased", n)
		}
		w.svc.find("cam-1").storeReel(parts[0])
		restart(func() {
			if _, err := w.records.Put(t.Context(), alertsToken+".cam-1", []byte{1, 2, 3}); err != nil {
				t.Fatal(err)
			}
		})
		if n := keys(); n != 0 {
			t.Errorf("%d parts are there that no record knows of", n)
		}
		w.close()
	})
}

// TestLabelsAreJudgedAnew: a label outlives the detectors that it was given under, and the
// profile, if what was around it is still a stream that the present profile knows.
func TestLabelsAreJudgedAnew(t *testing.T) {
	for _, c := range []struct {
		name   string
		by     func(s *stage)            // what judges, when the label is there
		kinds  func(k []string) []string // what detectors ran when the scores were kept
		judged bool
	}{
		{name: "the same profile"},
		{name: "other detectors", kinds: func(k []string) []string { return k[1:] }, judged: true},
		{name: "learned anew", by: func(s *stage) {
			if err := s.b.relearn(s.now); err != nil {
				s.t.Fatal(err)
			}
			s.play(time.Minute)
		}, judged: true},
		{name: "another source", by: func(s *stage) {
			s.e.style = foreign
			if err := s.b.relearn(s.now); err != nil {
				s.t.Fatal(err)
			}
			s.play(time.Minute)
		}},
		{name: "another source and other detectors", kinds: func(k []string) []string { return k[1:] }, by: func(s *stage) {
			s.e.style = foreign
			if err := s.b.relearn(s.now); err != nil {
				s.t.Fatal(err)
			}
			s.play(time.Minute)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s, parts := filmedWorld(t)
				if _, err := w.feedback(bus.FeedbackRequest{Alert: "cam-1.1", Real: true}); err != nil {
					t.Fatal(err)
				}
				st := w.svc.find("cam-1")
				if c.kinds != nil {
					kinds := c.kinds(accusing)
					old := &tune.Trace{Layout: &tune.Layout{Kinds: kinds, Path: make([]bool, len(kinds))}, From: s.b.alerts.all[0].Opened.Add(-contextLead)}
					old.Add(make([]episode.Level, len(kinds)), 0)
					st.storeContext(kept{1, old})
					for _, p := range parts { // of another version of the program
						r := reelRecord{}
						if err := cbor.Unmarshal(p.content, &r); err != nil {
							t.Fatal(err)
						}
						r.By++
						p.content, _ = keepMode.Marshal(r)
						st.storeReel(p)
					}
				}
				if c.by != nil {
					c.by(s)
					w.crash()
					w.learned(s)
					w.start()
					time.Sleep(5 * time.Second)
				}
				want, lost := 1.0, 0
				if c.kinds != nil && !c.judged {
					want, lost = 0, 1
				}
				st = w.svc.find("cam-1")
				for i := range 2 { // the second time from what was written down
					rec, err := st.tuner.view(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					m, err := st.gather(t.Context(), &rec)
					if err != nil {
						t.Fatal(err)
					}
					if got := m.data.Judge(tune.DefaultParams()); math.Abs(got.Real-want) > 0.2 || m.lost != lost || (m.again == 1) != c.judged || (len(m.anew) > 0) != (i == 0) {
						t.Errorf("time %d: %.2f real episodes, %d lost, %d judged anew, %d looked at", i, got.Real, m.lost, m.again, len(m.anew))
					}
					if err := st.keepContext(t.Context(), m); err != nil {
						t.Fatal(err)
					}
				}
				w.close()
			})
		})
	}
}

// TestQuietRecordingsStandIn for the history of an hour of which there is none by the
// detectors of now.
func TestQuietRecordingsStandIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, _ := filmedWorld(t)
		s.b.tuned.recordedAt = time.Time{}
		s.play(2 * time.Minute)
		_, windows, _ := s.b.takeTuning()
		for i, ago := range []time.Duration{30 * time.Minute, 5 * time.Hour} {
			hour := uint64(s.now.Add(-ago).Unix()) / uint64(recordEvery/time.Second)
			w.seal(bus.SealedWindows, fmt.Sprintf("%s.cam-1.%d", windowsToken, i), hour, windows)
		}
		st := w.svc.find("cam-1")
		rec, err := st.tuner.view(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := st.gather(t.Context(), &rec)
		if err != nil {
			t.Fatal(err)
		}
		want := 40.0/60 + float64(tune.StretchHops-tune.LeadHops)/float64(hops(time.Hour))
		if m.quiet != 1 || math.Abs(m.basis.Hours-want) > 0.001 || m.basis.Simulated == 0 {
			t.Errorf("%d recordings stand in, %.3f h of quiet traffic, want %.3f; %d simulated", m.quiet, m.basis.Hours, want, m.basis.Simulated)
		}
		w.close()
	})
}

func FuzzReadReel(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readReel(b)
		if err != nil {
			return
		}
		if len(r.windows) > partHops || len(r.windows) != len(r.flags) {
			t.Errorf("%d windows, circumstances of %d", len(r.windows), len(r.flags))
		}
	})
}
