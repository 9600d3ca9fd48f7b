package transport

import (
	"net/netip"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// sendBuffer is asked of the kernel for an output's socket: what is sent while it
// is full is dropped.
const sendBuffer = 4 << 20

// sink is a UDP socket for one address.
type sink struct {
	sock *media.UDPSocket
	*media.Sender
}

func newSink(to netip.AddrPort) (sink, error) {
	// Bound to loopback for loopback: nobody else needs to reach the socket.
	local := "0.0.0.0:0"
	switch {
	case to.Addr().IsLoopback() && to.Addr().Is4():
		local = "127.0.0.1:0"
	case to.Addr().Is6():
		local = "[::]:0"
	}
	sock, err := media.ListenUDP(local, media.SocketOptions{SendBuffer: sendBuffer})
	if err != nil {
		return sink{}, err
	}
	w := sock.NewSender(to, batchSize)
	w.DropWhenFull()
	return sink{sock, w}, nil
}

// udpOutput sends each packet's transport stream as one datagram.
type udpOutput struct {
	sink
	pkts [][]byte
}

func newUDPOutput(to netip.AddrPort) (output, error) {
	s, err := newSink(to)
	return &udpOutput{sink: s}, err
}

func (o *udpOutput) session(gkrp.Payload) {}

func (o *udpOutput) deliver(_ *session, d *delivery) {
	o.pkts = o.pkts[:0]
	for _, u := range d.units {
		if len(u.payload) > 0 {
			o.pkts = append(o.pkts, u.payload)
		}
	}
	// Nobody waits for a receiver that is not there, as with every UDP source.
	_, _ = o.Send(o.pkts)
}

func (o *udpOutput) close() { _ = o.sock.Close() }
