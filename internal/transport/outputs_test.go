package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

func TestParseOutput(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		text string
		want Output // zero: refused
	}{
		{"udp://127.0.0.1:5004", Output{"", "udp://127.0.0.1:5004"}},
		{"cam-1=rtp://[::1]:5004", Output{"cam-1", "rtp://[::1]:5004"}},
		{"cam-1=file:" + dir + "/a=b.ts", Output{"cam-1", "file:" + dir + "/a=b.ts"}},
		{"file:" + dir + "/{stream}.ts", Output{"", "file:" + dir + "/{stream}.ts"}},
		{"file:" + dir + "/all.ts", Output{}},
		{"cam-1=file:" + dir + "/none/a.ts", Output{}},
		{"cam-1=file:", Output{}},
		{"udp://127.0.0.1", Output{}},
		{"udp://127.0.0.1:5004?pkt_size=1316", Output{}},
		{"srt://127.0.0.1:5004", Output{}},
		{"127.0.0.1:5004", Output{}},
		{"a b=udp://127.0.0.1:5004", Output{}},
	} {
		got, err := ParseOutput(c.text)
		if got != c.want || (err == nil) == (c.want == Output{}) {
			t.Errorf("%s: %+v, %v", c.text, got, err)
		}
	}
}

// receiver is a socket that an output sends to.
func receiver(t *testing.T) (addr string, next func() []byte) {
	t.Helper()
	sock, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sock.Close() })
	_ = sock.SetReadDeadline(time.Now().Add(2 * time.Minute))
	r := sock.NewReceiver(1, 2048)
	return sock.LocalAddr().String(), func() []byte {
		t.Helper()
		batch, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(batch[0].Data)
	}
}

// TestOutputs: what each kind of output gets over two sessions of a stream. RTP
// keeps its SSRC and goes on with its sequence numbers.
func TestOutputs(t *testing.T) {
	udp, nextUDP := receiver(t)
	rtp, nextRTP := receiver(t)
	file := filepath.Join(t.TempDir(), "out.ts")
	cfg := testConfig()
	cfg.Outputs = []Output{{"", "udp://" + udp}, {testStream, "rtp://" + rtp}, {testStream, "file:" + file}, {"cam-2", "file:" + file + "2"}}
	w := newWorld(t, cfg)
	var want []byte
	var last media.Header
	for session := range 2 {
		w.newSession()
		w.ssrc += uint32(session)
		w.assign(mp2t)
		e := gk.Epoch(session + 1)
		first := gk.Index(65530 + 777*session)
		w.arm(e)
		w.begin(e, first)
		s := w.sealer(e)
		for i := first; i < first+20; i++ {
			w.send(w.packet(s, i, tsPayload(i)))
			want = append(want, tsPayload(i)...)
			if got := nextUDP(); !bytes.Equal(got, tsPayload(i)) {
				t.Fatalf("udp: packet %d is %d bytes", i, len(got))
			}
			pkt := nextRTP()
			h, err := media.ParseHeader(pkt)
			if err != nil || !bytes.Equal(pkt[h.Size:], tsPayload(i)) || h.PayloadType != media.PayloadTypeTS {
				t.Fatalf("rtp: packet %d: %v", i, err)
			}
			if last.Size > 0 && (h.SSRC != last.SSRC || h.Seq != last.Seq+1 || int32(h.Timestamp-last.Timestamp) < 0) {
				t.Fatalf("rtp: %+v after %+v", h, last)
			}
			last = h
		}
	}
	w.until("the file", func() bool {
		got, _ := os.ReadFile(file)
		return bytes.Equal(got, want)
	})
	if _, err := os.Stat(file + "2"); err == nil {
		t.Error("another stream's file was made")
	}
}

// TestViewers: two viewers of a stream, one of whom does not read. The other one
// gets every byte, beginning at a program association table.
func TestViewers(t *testing.T) {
	cfg := testConfig()
	cfg.ViewerBuffer = 1 << 20
	w := newWorld(t, cfg)
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, 1)
	server := httptest.NewServer(w.svc)
	defer server.Close()
	count := w.svc.streams[testStream].viewers.count
	join := func() <-chan *http.Response {
		c := make(chan *http.Response, 1)
		before := count()
		go func() {
			resp, err := http.Get(server.URL + "/streams/cam-1.ts")
			if err != nil {
				t.Error(err)
			}
			c <- resp
		}()
		w.until("a viewer", func() bool { return count() == before+1 })
		return c
	}
	slowJoins, fastJoins := join(), join()
	const run = 128
	s := w.sealer(1)
	index := gk.Index(1)
	send := func(n int) {
		for range n {
			w.send(w.packet(s, index, tsPayload(index)))
			index++
		}
		w.until("delivery", func() bool { return w.status().Delivered == uint64(index-1) })
	}
	// No key frame in the first packet: a viewer must not begin with it.
	middle := tsPayload(index)
	middle[2*media.TSPacketSize+5] = 0
	w.send(w.packet(s, index, middle))
	index++
	send(run)
	slow, fast := <-slowJoins, <-fastJoins
	defer slow.Body.Close()
	defer fast.Body.Close()
	for buf := make([]byte, run*1316); count() > 1; send(run) {
		first := index - run
		if n, err := io.ReadFull(fast.Body, buf); err != nil {
			t.Fatalf("fast viewer after %d bytes: %v", n, err)
		}
		for i := range run {
			if !bytes.Equal(buf[i*1316:(i+1)*1316], tsPayload(first+gk.Index(i))) {
				t.Fatalf("fast viewer: packet %d is another", first+gk.Index(i))
			}
		}
		if index > 40_000 {
			t.Fatal("the slow viewer was not dropped")
		}
	}
	if got, err := io.Copy(io.Discard, slow.Body); err == nil {
		t.Errorf("the slow viewer's stream ended as if complete, after %d bytes", got)
	}
	if slow.Header.Get("Content-Type") != "video/mp2t" {
		t.Errorf("content type %q", slow.Header.Get("Content-Type"))
	}
}

func TestViewerRefusals(t *testing.T) {
	w := newWorld(t, testConfig())
	server := httptest.NewServer(w.svc)
	defer server.Close()
	check := func(path string, code int, words string) {
		t.Helper()
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != code || !strings.Contains(string(body), words) {
			t.Errorf("%s: %d %q, want %d %q", path, resp.StatusCode, body, code, words)
		}
	}
	check("/streams/cam-1.ts", http.StatusNotFound, `no stream "cam-1"`)
	check("/streams/cam-1", http.StatusNotFound, "/streams/NAME.ts")
	w.assign(gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, ClockRate: 90_000, Encoding: "H264"})
	check("/streams/cam-1.ts", http.StatusUnsupportedMediaType, "H264")
	resp, err := http.Post(server.URL+"/streams/cam-1.ts", "text/plain", nil)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("post: %v %v", resp, err)
	}
}

// TestViewerRead: why a viewer goes.
func TestViewerRead(t *testing.T) {
	deliver := func(v *viewers, payloads ...[]byte) {
		d := newDelivery()
		for _, p := range payloads {
			d.add(unit{payload: p})
		}
		v.deliver(d)
	}
	buf := make([]byte, 4000)
	v := newViewers(10*1316, 2)
	a, _ := v.join(nil)
	if _, err := a.read(t.Context(), buf, time.Nanosecond); !errors.Is(err, errNoData) {
		t.Errorf("nothing sent: %v", err)
	}
	deliver(v, []byte("no transport stream"))
	if _, err := a.read(t.Context(), buf, time.Nanosecond); !errors.Is(err, errNotTS) {
		t.Errorf("no transport stream sent: %v", err)
	}
	b, _ := v.join(nil)
	if _, err := v.join(nil); !errors.Is(err, errViewersFull) {
		t.Errorf("a third viewer of two: %v", err)
	}
	for i := range 10 {
		deliver(v, tsPayload(gk.Index(i)))
	}
	if n, err := a.read(t.Context(), buf, time.Minute); err != nil || n != 4000/188*188 || !bytes.Equal(buf[:1316], tsPayload(0)) {
		t.Errorf("read %d, %v", n, err)
	}
	deliver(v, tsPayload(10))
	if _, err := b.read(t.Context(), buf, time.Minute); !errors.Is(err, errViewerSlow) {
		t.Errorf("behind by more than the ring: %v", err)
	}
	for {
		if n, err := a.read(t.Context(), buf, time.Nanosecond); n == 0 {
			if !errors.Is(err, errNoData) {
				t.Errorf("at the end: %v", err)
			}
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.read(ctx, buf, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	v.close()
	if _, err := a.read(t.Context(), buf, time.Minute); !errors.Is(err, errStreamClosed) {
		t.Errorf("closed: %v", err)
	}
	a.leave()
	b.leave()
	if v.ring != nil {
		t.Error("a ring without viewers")
	}
}

// TestViewerStart: where a viewer begins in streams of several kinds.
func TestViewerStart(t *testing.T) {
	without := func(p int, change func(ts []byte)) func(gk.Index) []byte {
		return func(i gk.Index) []byte {
			b := tsPayload(i)
			change(b[p*media.TSPacketSize:])
			return b
		}
	}
	plain := func(ts []byte) { ts[1] = 0x01 }
	for _, row := range []struct {
		name    string
		payload func(gk.Index) []byte
		first   int // payload in which the viewer begins
	}{
		{"key frame in every payload", tsPayload, 0},
		{"key frame in the fifth", func(i gk.Index) []byte {
			if i == 5 {
				return tsPayload(i)
			}
			return without(2, func(ts []byte) { ts[5] = 0 })(i)
		}, 5},
		{"no key frame marked", without(2, func(ts []byte) { ts[5] = 0 }), mostPATs - 1},
		{"no video", without(2, plain), mostPATsDeaf - 1},
		{"no map table", without(1, plain), mostPATs - 1},
	} {
		v := newViewers(1<<20, 1)
		r, _ := v.join(nil)
		d := newDelivery()
		for i := range gk.Index(60) {
			d.add(unit{payload: row.payload(i)})
		}
		v.deliver(d)
		buf := make([]byte, 1316)
		n, err := r.read(t.Context(), buf, time.Nanosecond)
		if want := row.payload(gk.Index(row.first)); err != nil || !bytes.Equal(buf[:n], want[:n]) || n == 0 {
			t.Errorf("%s: read %d, %v: not payload %d", row.name, n, err, row.first)
		}
	}
}
