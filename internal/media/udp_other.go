//go:build !linux

package media

import (
	"net/netip"
)

func beforeBind(uintptr, SocketOptions) error { return nil }

func (s *UDPSocket) tune(opt SocketOptions) (g Granted, err error) {
	if opt.ReceiveBuffer > 0 {
		err = s.conn.SetReadBuffer(opt.ReceiveBuffer)
	}
	if opt.SendBuffer > 0 && err == nil {
		err = s.conn.SetWriteBuffer(opt.SendBuffer)
	}
	return Granted{}, err
}

// Receiver takes datagrams from a socket, one at a time on this system.
type Receiver struct {
	s   *UDPSocket
	buf []byte
	out [1]Datagram
}

// NewReceiver makes a receiver of datagrams of up to size bytes.
func (s *UDPSocket) NewReceiver(_, size int) *Receiver {
	return &Receiver{s: s, buf: make([]byte, size)}
}

// Receive waits for a datagram. It is valid until the next Receive.
func (r *Receiver) Receive() ([]Datagram, error) {
	n, from, err := r.s.conn.ReadFromUDPAddrPort(r.buf)
	if err != nil {
		return nil, err
	}
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	r.out[0] = Datagram{Data: r.buf[:n], From: from, Truncated: n == len(r.buf)}
	return r.out[:], nil
}

// Sender sends datagrams to one address.
type Sender struct {
	s  *UDPSocket
	to netip.AddrPort
}

// NewSender makes a sender to an address.
func (s *UDPSocket) NewSender(to netip.AddrPort, _ int) *Sender { return &Sender{s: s, to: to} }

// DropWhenFull does nothing here: a send waits for the system alone.
func (w *Sender) DropWhenFull() {}

// Send sends pkts in order and tells how many left. pkts are not kept.
func (w *Sender) Send(pkts [][]byte) (int, error) {
	for i, p := range pkts {
		if _, err := w.s.conn.WriteToUDPAddrPort(p, w.to); err != nil {
			return i, err
		}
	}
	return len(pkts), nil
}
