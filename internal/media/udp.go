package media

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Datagram is one received UDP payload.
type Datagram struct {
	Data []byte
	From netip.AddrPort
	// At is the kernel's receive time in nanoseconds since the Unix epoch; 0 when
	// not asked for or not to be had.
	At int64
	// Truncated: the payload was longer than the receiver's buffers.
	Truncated bool
}

// SocketOptions are wishes about a socket; [UDPSocket.Granted] tells what came of them.
type SocketOptions struct {
	ReceiveBuffer int  // bytes; 0 leaves the system's default
	SendBuffer    int  // bytes; 0 leaves the system's default
	Timestamps    bool // kernel receive timestamps (SO_TIMESTAMPNS)
	ReusePort     bool // let several sockets share the port (SO_REUSEPORT)
}

// Granted is what the kernel gave of the [SocketOptions] asked for.
type Granted struct {
	ReceiveBuffer int // bytes usable; 0 where the system does not tell
	SendBuffer    int // bytes usable; 0 where the system does not tell
	Timestamps    bool
	Batches       bool // one system call moves many datagrams
}

// UDPSocket is a UDP socket that receives and sends in batches. Receivers and
// senders may be used at the same time, each by one goroutine.
type UDPSocket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	asked   SocketOptions
	granted Granted
}

// ListenUDP opens a socket at addr, host:port; an empty host is every address,
// port 0 any free one. An address in use gives an error that names it and says
// what to do.
func ListenUDP(addr string, opt SocketOptions) (*UDPSocket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = beforeBind(fd, opt) })
		return errors.Join(err, failed)
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("UDP address %s is in use: stop the program that has it or choose another address: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on UDP address %s: %w", addr, err)
	}
	s := &UDPSocket{conn: pc.(*net.UDPConn), asked: opt}
	if s.raw, err = s.conn.SyscallConn(); err == nil {
		s.granted, err = s.tune(opt)
	}
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("cannot set up UDP socket %s: %w", addr, err)
	}
	return s, nil
}

// Granted tells what the kernel granted.
func (s *UDPSocket) Granted() Granted { return s.granted }

// Shortfall says in words what was not granted and how to mend it; empty when
// all was.
func (s *UDPSocket) Shortfall() string {
	short := ""
	say := func(what, sysctl string, asked, got int) {
		if asked > got && got > 0 {
			short += fmt.Sprintf("; %s buffer is %d KiB where %d KiB were asked for: raise %s", what, got>>10, asked>>10, sysctl)
		}
	}
	say("receive", "net.core.rmem_max", s.asked.ReceiveBuffer, s.granted.ReceiveBuffer)
	say("send", "net.core.wmem_max", s.asked.SendBuffer, s.granted.SendBuffer)
	if s.asked.Timestamps && !s.granted.Timestamps {
		short += "; this system gives no receive timestamps"
	}
	if short == "" {
		return ""
	}
	return "UDP socket " + s.LocalAddr().String() + ": " + short[2:]
}

// LocalAddr is the address that the socket is bound to.
func (s *UDPSocket) LocalAddr() netip.AddrPort {
	return s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// SetReadDeadline makes receivers give up at t; the zero time means never. It
// interrupts one that waits.
func (s *UDPSocket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// Close ends the socket; receivers and senders then fail with [net.ErrClosed].
func (s *UDPSocket) Close() error { return s.conn.Close() }
