package processing

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Reports of the live session reach its transport, with the term of whoever hands
// them on; and a transport that does not take one holds nothing up.
func TestTransportsGetTheReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		var mu sync.Mutex
		var got []bus.ReportRequest
		_, err := bus.TransportReport.Serve(w.memory.Conn(), "t1", func(_ context.Context, r bus.ReportRequest) (bus.Empty, error) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, r)
			return bus.Empty{}, bus.Refuse(bus.CodeNotFound, "not here")
		})
		if err != nil {
			t.Fatal(err)
		}
		d := w.enroll("cam-1")
		d.run()
		time.Sleep(3500 * time.Millisecond)
		var own gk.SessionID
		d.look(func() {
			own = d.session
			d.execute([]gkrp.Effect{gkrp.Send{Message: &gkrp.Report{Stream: "cam-1", Session: own, Number: 50, Epoch: 1, From: 7, To: 9, Packets: 9, Tags: []byte("12345678"), Since: 1234}}})
			d.execute([]gkrp.Effect{gkrp.Send{Message: &gkrp.Report{Stream: "cam-1", Session: gk.SessionID{7}, Number: 51, Epoch: 1}}})
		})
		synctest.Wait()
		d.kill()
		w.close()
		if len(got) != 4 {
			t.Fatalf("%d reports reached the transport", len(got))
		}
		r := got[3].Report
		if got[3].Term == 0 || r.Stream != "cam-1" || r.Session != own || r.Number != 50 || r.From != 7 || r.To != 9 || r.Packets != 9 || string(r.Tags) != "12345678" || r.SinceMs != 1234 {
			t.Errorf("the transport got %+v", got[3])
		}
	})
}
