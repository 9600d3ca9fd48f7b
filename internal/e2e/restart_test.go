package e2e

import (
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// picture is the far end of an output: it knows when media last arrived.
type picture struct {
	conn *net.UDPConn
	mu   sync.Mutex
	last time.Time
}

func newPicture(t *testing.T) *picture {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &picture{conn: conn}
	go func() {
		buf := make([]byte, 65536)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			p.mu.Lock()
			p.last = time.Now()
			p.mu.Unlock()
		}
	}()
	return p
}

// back waits for media that arrives later than since, and says how much later.
func (p *picture) back(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	var after time.Duration
	until(t, "the picture is back", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		after = p.last.Sub(since)
		return after > 0
	})
	return after
}

// live is a stream from an encoder that goes on whatever becomes of the rest.
func live(t *testing.T) (s *site, p *picture, device []string) {
	t.Helper()
	need(t, "ffmpeg")
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	clip, err := filepath.Abs("../clip/demo.ts")
	if err != nil {
		t.Fatal(err)
	}
	p = newPicture(t)
	s = newSite(t, "--rotate-every=60ms", "--output", "udp://"+p.conn.LocalAddr().String())
	in := freeUDP(t)
	start(t, "ffmpeg", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", clip, "-c", "copy", "-f", "mpegts", "udp://"+in+"?pkt_size=1316")
	return s, p, []string{"--source", "udp://" + in}
}

// granted is a line of the device's log that tells of a key it took.
var granted = regexp.MustCompile(`msg=rotation-done .*session=([0-9a-f]{32}) epoch=(\d+)`)

// checkKeys wants every key that devices took to be on record for the session it
// was taken in, and none to be of two sessions.
func checkKeys(t *testing.T, s *site, devices ...*process) {
	t.Helper()
	var keys []bus.KeyInfo
	s.ask(&keys, "keys", "cam-1", "--all")
	recorded := map[gk.Epoch]gk.SessionID{}
	oldest := gk.Epoch(1<<32 - 1)
	for _, k := range keys {
		if other, ok := recorded[k.Epoch]; ok && other != k.Session {
			t.Errorf("epoch %d is on record for sessions %s and %s", k.Epoch, other, k.Session)
		}
		recorded[k.Epoch] = k.Session
		oldest = min(oldest, k.Epoch)
	}
	used := map[gk.Epoch]gk.SessionID{}
	for _, d := range devices {
		for _, m := range granted.FindAllStringSubmatch(d.output(), -1) {
			session, err := gk.ParseSessionID(m[1])
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.ParseUint(m[2], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			epoch := gk.Epoch(n)
			if other, ok := used[epoch]; ok && other != session {
				t.Errorf("epoch %d was used in sessions %s and %s", epoch, other, session)
			}
			used[epoch] = session
			// Of destroyed keys only the last are listed.
			if have, ok := recorded[epoch]; epoch >= oldest && (!ok || have != session) {
				t.Errorf("epoch %d was used in session %s, on record is %s", epoch, session, have)
			}
		}
	}
	if len(used) < 20 {
		t.Errorf("only %d keys were used: the test shows little", len(used))
	}
}

const kills = 4

func TestDeviceIsKilled(t *testing.T) {
	s, picture, source := live(t)
	s.serve()
	args := append(s.device("cam-1", source[1]), "--log-format=text")
	var all []*process
	began := time.Now()
	for i := range kills {
		device := start(t, program, args...)
		all = append(all, device)
		t.Logf("start %d: picture after %v", i, picture.back(t, began).Round(time.Millisecond))
		time.Sleep(time.Second + time.Duration(i)*37*time.Millisecond)
		device.kill()
		time.Sleep(300 * time.Millisecond) // what was on its way has arrived
		began = time.Now()
	}
	checkKeys(t, s, all...)
}

func TestServerIsKilled(t *testing.T) {
	s, picture, source := live(t)
	server := s.serve()
	device := start(t, program, s.device("cam-1", source[1])...)
	keys := func() int { return len(granted.FindAllString(device.output(), -1)) }
	more := func(n int) {
		until(t, "keys change", func() bool { return keys() >= n })
	}
	more(5)
	for i := range kills {
		time.Sleep(time.Duration(i) * 37 * time.Millisecond)
		had := keys()
		server.kill()
		began := time.Now()
		server = s.serve()
		back := picture.back(t, began)
		more(had + 1)
		t.Logf("restart %d: picture after %v, next key within %v", i, back.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		more(had + 5)
	}
	checkKeys(t, s, device)
	server.stop()
	select {
	case <-device.done:
		t.Error("the device ended with its server")
	default:
	}
}
