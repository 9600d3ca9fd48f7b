package transport

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// party is one of the sessions that want one stream.
type party struct {
	session gk.SessionID
	ssrc    uint32
	epoch   gk.Epoch
	seal    *media.Sealer
	index   gk.Index
}

// contest is a stream whose live session a newcomer, armed and unconfirmed, joins.
func newContest(t *testing.T) (l *leased, incumbent, newcomer *party) {
	t.Helper()
	l = newLeased(t, time.Minute)
	incumbent = &party{l.session, l.ssrc, 1, l.seal, 1}
	newcomer = &party{session: gk.SessionID{2}, ssrc: l.ssrc + 1, epoch: 5}
	l.as(newcomer)
	l.assign(mp2t)
	l.arm(newcomer.epoch)
	newcomer.seal, newcomer.index = l.sealer(newcomer.epoch), 5000
	return l, incumbent, newcomer
}

func (l *leased) as(p *party) { l.session, l.ssrc = p.session, p.ssrc }

// says has a party send a packet, and tells whether that is delivered, after d.
func (l *leased) says(p *party, d time.Duration) bool {
	l.as(p)
	l.d.Packet(time.Now(), l.packet(p.seal, p.index, tsPayload(p.index)))
	p.index++
	time.Sleep(d)
	l.d.Tick(time.Now())
	synctest.Wait()
	all := l.delivered()
	return len(all) > 0 && all[len(all)-1].index == p.index-1
}

// Also where the transport was restarted, and the clone's packet came before any of the
// live session's.
func TestUnconfirmedNewcomerThatCameFirstGivesTheStreamBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, incumbent, clone := newContest(t)
		l.svc.mu.Lock()
		st := l.svc.streams[testStream] // as after a restart: both are armed, and neither was heard
		if st.current == nil {
			t.Fatal("the live session is not the current one")
		}
		st.waiting, st.current = append(st.waiting, st.current), nil
		l.svc.mu.Unlock()
		if !l.says(clone, 500*time.Millisecond) {
			t.Fatal("nothing is delivered")
		}
		if l.says(incumbent, 500*time.Millisecond) {
			t.Error("both have the stream")
		}
		if l.says(clone, time.Second); l.says(incumbent, time.Second) {
			t.Error("the stream is given back while the newcomer sends")
		}
		if !l.says(incumbent, time.Second) {
			t.Fatal("the stream was not given back")
		}
		for range 3 {
			if l.says(clone, time.Second) {
				t.Error("the clone has the stream again, unconfirmed")
			}
		}
		l.as(clone)
		l.begin(clone.epoch, clone.index)
		if !l.says(clone, time.Second) || l.says(incumbent, 2*time.Second) {
			t.Error("the ACK does not decide")
		}
	})
}

// A clone that had one packet delivered, and whose ACK never came, does not lock the
// live session out: that has the stream again when the clone falls silent, with the
// keys that it had, and whoever is away.
func TestUnconfirmedNewcomerGivesTheStreamBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, incumbent, clone := newContest(t)
		if !l.says(incumbent, time.Second) || !l.says(clone, 500*time.Millisecond) {
			t.Fatal("nothing is delivered")
		}
		if l.says(incumbent, 500*time.Millisecond) {
			t.Error("both have the stream")
		}
		// The service is told that its session is alive, and can send the clone away.
		if all := l.svc.Status(time.Now()); len(all) != 2 || all[0].Session != incumbent.session || all[0].SilentMs != 500 || all[0].Dropped["replaced"] != 1 {
			t.Errorf("status %+v", all)
		}
		l.as(incumbent)
		l.arm(2) // a rotation meanwhile
		time.Sleep(500 * time.Millisecond)
		if !l.says(incumbent, time.Second) {
			t.Fatal("the stream was not given back")
		}
		incumbent.seal = l.sealer(2)
		l.begin(2, incumbent.index)
		if !l.says(incumbent, time.Second) {
			t.Error("the next key is not taken")
		}
		for range 3 {
			if l.says(clone, time.Second) {
				t.Error("the clone has the stream again, unconfirmed")
			}
		}
		l.begin(clone.epoch, clone.index) // its ACK after all
		if !l.says(clone, time.Second) || l.says(incumbent, time.Second) {
			t.Error("the confirmed session does not have the stream")
		}
		if n := l.svc.Outsiders()["unknown-ssrc"]; n != 1 {
			t.Errorf("%d packets of a session that is gone", n)
		}
	})
}

// What the service sends away gives the stream back at once.
func TestReleasedNewcomerGivesTheStreamBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, incumbent, clone := newContest(t)
		l.says(incumbent, 100*time.Millisecond)
		l.says(clone, 100*time.Millisecond)
		release := bus.ReleaseStream{Stream: testStream, Session: clone.session, Term: 1}
		if _, err := bus.TransportRelease.Do(context.Background(), l.conn, string(l.here.Transport), release); err != nil {
			t.Fatal(err)
		}
		if !l.says(incumbent, time.Second) {
			t.Error("the session before does not have the stream")
		}
	})
}

// The keys of the session before go when the newcomer is confirmed, by the word of
// where it begins or by any later one, and when nobody vouches for them any more.
func TestKeysOfTheSessionBeforeGo(t *testing.T) {
	for name, over := range map[string]func(l *leased, newcomer *party){
		"with the ACK": func(l *leased, p *party) { l.begin(p.epoch, 5000) },
		"with a report": func(l *leased, p *party) {
			req := bus.SwitchRequest{Stream: testStream, Session: p.session, Epoch: p.epoch, Near: p.index, Term: 1}
			if _, err := bus.TransportSwitch.Do(context.Background(), l.conn, string(l.here.Transport), req); err != nil {
				t.Error(err)
			}
		},
		"with the lease": func(l *leased, p *party) {
			for range 58 {
				l.says(p, time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, incumbent, newcomer := newContest(t)
				l.says(incumbent, time.Second)
				l.says(newcomer, time.Second)
				if n := len(l.seen(gk.EventEpochRetired)); n != 0 {
					t.Fatalf("%d keys went already", n)
				}
				over(l, newcomer)
				time.Sleep(time.Second)
				l.d.Tick(time.Now())
				synctest.Wait()
				if n := len(l.seen(gk.EventEpochRetired)); n != 1 || len(l.svc.Status(time.Now())) != 1 {
					t.Errorf("%d keys went; %+v", n, l.svc.Status(time.Now()))
				}
			})
		})
	}
}
