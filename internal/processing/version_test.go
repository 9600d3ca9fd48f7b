package processing

import (
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Every pairing of a device's offer with a service's minimum either runs, with
// tags in the reports exactly where both know them and the site wants them, or is
// refused with the list of what would do.
func TestVersionsAndWhatTheyBring(t *testing.T) {
	v := func(v ...gkrp.Version) []gkrp.Version { return v }
	for _, row := range []struct {
		name  string
		offer []gkrp.Version
		least gkrp.Version
		ask   bool
		runs  bool
		tags  bool
	}{
		{"old device, new service", v(0), 0, true, true, false},
		{"old device, raised minimum", v(0), 1, true, false, false},
		{"new device, new service", v(0, 1), 0, true, true, true},
		{"new device, raised minimum", v(0, 1), 1, true, true, true},
		{"new device, no tags wanted", v(0, 1), 0, false, true, false},
		{"device that left version 0", v(1), 0, true, true, true},
		{"device of tomorrow", v(0, 1, 2, 3, 4), 0, true, true, true},
		{"device of tomorrow that left all of these", v(4), 0, true, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				cfg.MinVersion, cfg.ReportTags = row.least, row.ask
				w := newWorld(t, cfg)
				var mu sync.Mutex
				var reports []bus.DeviceReport
				_, err := bus.DeviceReports.Hear(w.memory.Conn(), func(r bus.DeviceReport) {
					mu.Lock()
					defer mu.Unlock()
					reports = append(reports, r)
				})
				if err != nil {
					t.Fatal(err)
				}
				d := w.enroll("cam-1")
				d.offer = row.offer
				d.run()
				time.Sleep(5500 * time.Millisecond)
				d.kill()
				w.close()
				if !row.runs {
					if len(reports) != 0 || !slices.Contains(d.overs, gkrp.CodeUnsupportedVersion) {
						t.Errorf("%d reports, and the device was told %v", len(reports), d.overs)
					}
					return
				}
				if len(reports) < 4 || len(d.overs) != 0 {
					t.Fatalf("%d reports, and the device was told %v", len(reports), d.overs)
				}
				for i, r := range reports {
					if r.Stream != "cam-1" || r.Session != d.session || r.Number != uint64(i+1) || r.Epoch != 1 || r.Packets == 0 {
						t.Errorf("report %d: %+v", i, r)
					}
					if i > 0 && r.From != reports[i-1].To {
						t.Errorf("report %d begins at %d, the one before ended at %d", i, r.From, reports[i-1].To)
					}
					if !row.tags {
						if r.Tags != nil {
							t.Errorf("report %d has %d bytes of tags", i, len(r.Tags))
						}
						continue
					}
					for n := r.From; n < r.To; n++ {
						if got := binary.BigEndian.Uint32(r.Tags[gkrp.TagPrefix*(n-r.From):]); gk.Index(got) != n {
							t.Fatalf("report %d: tag of index %d is %d", i, n, got)
						}
					}
				}
			})
		})
	}
}

// Only reports of the live session are handed on, and each once.
func TestReportsThatAreNotHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		var mu sync.Mutex
		var numbers []uint64
		_, err := bus.DeviceReports.Hear(w.memory.Conn(), func(r bus.DeviceReport) {
			mu.Lock()
			defer mu.Unlock()
			numbers = append(numbers, r.Number)
		})
		if err != nil {
			t.Fatal(err)
		}
		d := w.enroll("cam-1")
		d.run()
		time.Sleep(2500 * time.Millisecond)
		say := func(session gk.SessionID, number uint64) {
			d.look(func() {
				d.execute([]gkrp.Effect{gkrp.Send{Message: &gkrp.Report{Stream: "cam-1", Session: session, Number: number, Epoch: 1, Packets: 1}}})
			})
			synctest.Wait()
		}
		var own gk.SessionID
		d.look(func() { own = d.session })
		say(own, 100)
		say(own, 100) // once more
		say(own, 99)  // overtaken
		say(gk.SessionID{7}, 200)
		d.kill()
		w.close()
		if !slices.Equal(numbers, []uint64{1, 2, 100}) {
			t.Errorf("reports %v were handed on", numbers)
		}
	})
}
