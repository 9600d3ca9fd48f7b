package attack

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// ear hears what somebody in the path sends on, and when.
type ear struct {
	mu   sync.Mutex
	pkts [][]byte
	at   []time.Time
}

func (e *ear) hear(pkt []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pkts, e.at = append(e.pkts, bytes.Clone(pkt)), append(e.at, time.Now())
	return nil
}

func number(n int) []byte { return binary.BigEndian.AppendUint32(make([]byte, 996), uint32(n)) }

// Somebody in the path changes when packets come, and neither which nor their order.
func TestMiddleChangesOnlyTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e ear
		dropped := 0
		m := NewMiddle(Relayed(), e.hear, func([]byte) { dropped++ })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		forward := func(pkt []byte) { _ = e.hear(pkt) }
		var sent []time.Time
		for i := range 300 {
			switch i {
			case 100:
				m.Begin()
			case 200:
				m.End()
				synctest.Wait()
			}
			sent = append(sent, time.Now())
			m.Intercept(number(i), forward)
			time.Sleep(2300 * time.Microsecond)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(e.pkts) != 300 || dropped != 0 {
			t.Fatalf("%d packets came through, %d were dropped", len(e.pkts), dropped)
		}
		for i, pkt := range e.pkts {
			late := e.at[i].Sub(sent[i])
			if !bytes.Equal(pkt, number(i)) {
				t.Fatalf("packet %d is another", i)
			}
			switch { // what he held at the end went out at once
			case i >= 100 && i < 197 && (late < relayDelay || late > relayDelay+2*relayTick), (i < 100 || i >= 200) && late != 0:
				t.Errorf("packet %d is %v late", i, late)
			}
		}
		if st, err := m.Stats(); err != nil || st.Sent != 100 || !st.Began.Equal(sent[100]) {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// A throttled link carries its rate, and drops what its queue cannot hold.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e ear
		dropped := 0
		m := NewMiddle(Throttled(80_000, 500*time.Millisecond), e.hear, func([]byte) { dropped++ })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		m.Begin()
		for i := range 1000 { // 100 000 B/s for 10 s
			m.Intercept(number(i), nil)
			time.Sleep(10 * time.Millisecond)
		}
		m.End()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(e.pkts); n+dropped != 1000 || n < 800 || n > 845 {
			t.Errorf("%d packets carried, %d dropped of 1000", n, dropped)
		}
	})
}

// What somebody without the key sends opens nowhere, and what he recorded is known.
func TestOutsiderIsOutside(t *testing.T) {
	for _, aside := range []bool{true, false} {
		s := newSource(t, 1000)
		open, err := media.NewOpener(s.key, ssrc, epoch)
		if err != nil {
			t.Fatal(err)
		}
		verdicts := map[media.Verdict]int{}
		judge := func(pkt []byte) {
			_, v := open.Open(nil, pkt)
			verdicts[v]++
		}
		var send func([]byte) error
		if aside {
			send = func(pkt []byte) error { judge(pkt); return nil }
		}
		o := NewOutsider(send)
		for i := range 120 {
			switch i {
			case 40:
				o.Flood()
			case 80:
				o.Replay()
			case 100:
				o.Leave()
			}
			o.Intercept(s.next(), judge)
		}
		st, err := o.Stats()
		if err != nil || st.Forged != 400 || st.Replayed != 80 || st.Left != 0 || st.Began.IsZero() {
			t.Errorf("%+v, %v", st, err)
		}
		if verdicts[media.OK] != 120 || verdicts[media.AuthFail] != 400 || verdicts[media.Duplicate]+verdicts[media.TooOld] != 80 || len(verdicts) > 4 {
			t.Errorf("verdicts %v", verdicts)
		}
	}
}

// Films show what they say, and do without what was not recorded.
func TestFilms(t *testing.T) {
	recorded := [][]byte{{1}, {2}, {3}}
	loop := Loop()
	var got []byte
	for range 7 {
		got = append(got, loop(recorded)...)
	}
	if !bytes.Equal(got, []byte{1, 2, 3, 1, 2, 3, 1}) {
		t.Errorf("a loop of %v", got)
	}
	if Loop()(nil) != nil || Still()(nil) != nil || Other(nil)(recorded) != nil {
		t.Error("pictures of nothing")
	}
	other := bytes.Repeat([]byte{0x47}, 2*1316+188)
	film := Other(other)
	for range 5 {
		if len(film(recorded)) != 1316 {
			t.Fatal("a unit is not whole")
		}
	}
}
