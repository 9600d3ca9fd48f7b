package media

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper"
)

// gstreamer runs a pipeline between two sockets of this test: what is sent to
// the returned sender passes through it and comes out at the returned receiver.
func gstreamer(t *testing.T, caps, element string) (*Sender, *UDPSocket) {
	t.Helper()
	launch, err := exec.LookPath("gst-launch-1.0")
	if err != nil {
		t.Skip("gst-launch-1.0 is not installed (apt install gstreamer1.0-tools gstreamer1.0-plugins-bad)")
	}
	if exec.Command("gst-inspect-1.0", "--exists", "srtpdec").Run() != nil {
		t.Skip("GStreamer has no srtpdec (apt install gstreamer1.0-plugins-bad)")
	}
	out := listen(t, SocketOptions{})
	in := listen(t, SocketOptions{})
	port := in.LocalAddr()
	_ = in.Close()
	cmd := exec.CommandContext(t.Context(), launch, "-q", "udpsrc", "address=127.0.0.1", fmt.Sprintf("port=%d", port.Port()),
		"caps="+caps, "!")
	cmd.Args = append(cmd.Args, append(strings.Fields(element), "!", "udpsink", "host=127.0.0.1",
		fmt.Sprintf("port=%d", out.LocalAddr().Port()), "sync=false")...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return listen(t, SocketOptions{}).NewSender(port, 8), out
}

// through sends packets made by make one after the other until count of them
// came out; the pipeline swallows some while it starts.
func through(t *testing.T, w *Sender, out *UDPSocket, count int, make func(n int) []byte, check func(pkt []byte)) {
	t.Helper()
	r := out.NewReceiver(8, 2000)
	came := 0
	for n := 0; came < count; n++ {
		if n == 3000 {
			t.Fatalf("%d of %d packets came through the pipeline", came, count)
		}
		if _, err := w.Send([][]byte{make(n)}); err != nil {
			t.Fatal(err)
		}
		_ = out.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		batch, err := r.Receive()
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		for _, d := range batch {
			check(d.Data)
			came++
		}
	}
}

// TestGStreamerOpensOurs: libsrtp, behind srtpdec, opens what Sealer made.
func TestGStreamerOpensOurs(t *testing.T) {
	const epoch = 0x01020304
	key, salt := testKey(8)
	w, out := gstreamer(t, fmt.Sprintf("application/x-srtp,payload=(int)33,ssrc=(uint)%d,srtp-key=(buffer)%x%x,mki=(buffer)%08x,"+
		"srtp-cipher=(string)aes-256-gcm,srtp-auth=(string)null,srtcp-cipher=(string)aes-256-gcm,srtcp-auth=(string)null,roc=(uint)0",
		uint32(testSSRC), key, salt, epoch), "srtpdec")
	s, err := newSealer(key, salt, testSSRC, epoch)
	if err != nil {
		t.Fatal(err)
	}
	payload := func(index gaitkeeper.Index) string { return fmt.Sprintf("payload of packet %d", index) }
	through(t, w, out, 20, func(n int) []byte {
		return seal(t, s, gaitkeeper.Index(n), payload(gaitkeeper.Index(n)))
	}, func(pkt []byte) {
		h, err := ParseHeader(pkt)
		if err != nil || string(pkt[h.Size:]) != payload(gaitkeeper.Index(h.Seq)) {
			t.Fatalf("%v: packet %d came as %q", err, h.Seq, pkt)
		}
	})
}

// TestWeOpenGStreamers: Opener opens what srtpenc made.
func TestWeOpenGStreamers(t *testing.T) {
	const epoch = 0x0a0b0c0d
	key, salt := testKey(9)
	w, out := gstreamer(t, fmt.Sprintf("application/x-rtp,payload=(int)33,media=video,clock-rate=90000,encoding-name=MP2T,ssrc=(uint)%d", uint32(testSSRC)),
		fmt.Sprintf("srtpenc key=%x%x mki=%08x rtp-cipher=aes-256-gcm rtp-auth=null rtcp-cipher=aes-256-gcm rtcp-auth=null", key, salt, epoch))
	o, err := newOpener(key, salt, testSSRC, epoch)
	if err != nil {
		t.Fatal(err)
	}
	through(t, w, out, 20, func(n int) []byte {
		return append(header(gaitkeeper.Index(n)), fmt.Sprintf("payload of packet %d", n)...)
	}, func(pkt []byte) {
		opened, v := o.Open(nil, pkt)
		if v != OK || string(opened.Payload) != fmt.Sprintf("payload of packet %d", opened.Index) {
			t.Fatalf("%v: %q", v, opened.Payload)
		}
	})
}
