package media

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls are made here and not through golang.org/x/net, whose
// ReadBatch allocates an address for every datagram and cannot send segments.

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

func beforeBind(fd uintptr, opt SocketOptions) error {
	if opt.ReusePort {
		return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	return nil
}

func (s *UDPSocket) tune(opt SocketOptions) (g Granted, err error) {
	g.Batches = true
	if cerr := s.raw.Control(func(fd uintptr) {
		g.ReceiveBuffer = grow(int(fd), opt.ReceiveBuffer, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)
		g.SendBuffer = grow(int(fd), opt.SendBuffer, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)
		if opt.Timestamps {
			g.Timestamps = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) == nil
		}
	}); cerr != nil {
		err = cerr
	}
	return g, err
}

// grow asks for a buffer and gives what the kernel granted. It counts twice what
// it gives, for its own bookkeeping (socket(7)). The forced option needs
// CAP_NET_ADMIN and goes past the system's limit.
func grow(fd, want, option, forced int) int {
	if want > 0 && unix.SetsockoptInt(fd, unix.SOL_SOCKET, forced, want) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, want)
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	if err != nil {
		return 0
	}
	return got / 2
}

// controlSize has room for one timestamp.
var controlSize = unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{})))

// Receiver takes datagrams from a socket, many at once, into its own buffers.
type Receiver struct {
	s       *UDPSocket
	hdrs    []mmsghdr
	iovs    []unix.Iovec
	names   []unix.RawSockaddrInet6
	control []byte
	bufs    []byte
	size    int
	out     []Datagram
	used    int

	read  func(fd uintptr) bool
	n     int
	errno unix.Errno
}

// NewReceiver makes a receiver that takes up to batch datagrams of up to size
// bytes at once.
func (s *UDPSocket) NewReceiver(batch, size int) *Receiver {
	r := &Receiver{
		s: s, size: size, used: batch,
		hdrs:    make([]mmsghdr, batch),
		iovs:    make([]unix.Iovec, batch),
		names:   make([]unix.RawSockaddrInet6, batch),
		control: make([]byte, batch*controlSize),
		bufs:    make([]byte, batch*size),
		out:     make([]Datagram, batch),
	}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.bufs[i*size]
		r.iovs[i].SetLen(size)
		h := &r.hdrs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		if s.granted.Timestamps {
			h.Control = &r.control[i*controlSize]
		}
	}
	r.read = func(fd uintptr) bool {
		for {
			n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])),
				uintptr(len(r.hdrs)), unix.MSG_DONTWAIT, 0, 0)
			if errno == unix.EINTR {
				continue
			}
			r.n, r.errno = int(n), errno
			return errno != unix.EAGAIN
		}
	}
	return r
}

// Receive waits for datagrams and returns those that are there, at least one.
// They are valid until the next Receive. It allocates nothing.
func (r *Receiver) Receive() ([]Datagram, error) {
	// The kernel wrote its lengths over ours where it used a header.
	for i := range r.used {
		h := &r.hdrs[i].hdr
		h.Namelen = uint32(unsafe.Sizeof(r.names[i]))
		if h.Control != nil {
			h.SetControllen(controlSize)
		}
	}
	r.used = 0
	if err := r.s.raw.Read(r.read); err != nil {
		return nil, err
	}
	if r.errno != 0 {
		return nil, fmt.Errorf("receiving on %s: %w", r.s.LocalAddr(), r.errno)
	}
	r.used = r.n
	for i := range r.n {
		m := &r.hdrs[i]
		r.out[i] = Datagram{
			Data:      r.bufs[i*r.size : i*r.size+min(int(m.n), r.size)],
			From:      sockaddr(&r.names[i]),
			Truncated: m.hdr.Flags&unix.MSG_TRUNC != 0,
		}
		if m.hdr.Control != nil {
			r.out[i].At = timestamp(r.control[i*controlSize:], int(m.hdr.Controllen))
		}
	}
	return r.out[:r.n], nil
}

func sockaddr(a *unix.RawSockaddrInet6) netip.AddrPort {
	switch a.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), ntohs(v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), ntohs(a.Port))
	}
	return netip.AddrPort{}
}

// ntohs turns a port as the kernel keeps it, in network order, into a number;
// and back.
func ntohs(p uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&p))
	return uint16(b[0])<<8 | uint16(b[1])
}

// timestamp reads the SCM_TIMESTAMPNS message that stands first in control.
func timestamp(control []byte, n int) int64 {
	if n < controlSize {
		return 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_TIMESTAMPNS {
		return 0
	}
	return (*unix.Timespec)(unsafe.Pointer(&control[unix.CmsgLen(0)])).Nano()
}

const (
	// maxSegments bounds one segmented send; the kernel's own bound is 64.
	maxSegments = 48
	// maxSegmentedBytes keeps a segmented send within one IP datagram's length.
	maxSegmentedBytes = 65000
)

// Sender sends datagrams to one address, many in one system call; runs of equal
// length leave as segments of one (UDP_SEGMENT, udp(7)) where the kernel can.
type Sender struct {
	s        *UDPSocket
	name     unix.RawSockaddrInet6
	nameLen  uint32
	segments bool
	drop     bool

	hdrs    []mmsghdr
	counts  []int // datagrams in each message
	iovs    []unix.Iovec
	control []byte

	write func(fd uintptr) bool
	from  int // first message not sent yet
	errno unix.Errno
}

var segmentControl = unix.CmsgSpace(2)

// NewSender makes a sender to an address, taking up to batch datagrams at once.
func (s *UDPSocket) NewSender(to netip.AddrPort, batch int) *Sender {
	w := &Sender{
		s: s, segments: true,
		hdrs:    make([]mmsghdr, 0, batch),
		counts:  make([]int, 0, batch),
		iovs:    make([]unix.Iovec, batch),
		control: make([]byte, batch*segmentControl),
	}
	w.address(to)
	w.write = func(fd uintptr) bool {
		for w.from < len(w.hdrs) {
			n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.hdrs[w.from])),
				uintptr(len(w.hdrs)-w.from), unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				w.from, w.errno = w.from+int(n), 0
			case unix.EINTR:
			case unix.EAGAIN:
				w.errno = errno
				return w.drop
			default:
				w.errno = errno
				return true
			}
		}
		return true
	}
	return w
}

// address prepares the destination in the form that the socket's own family needs.
func (w *Sender) address(to netip.AddrPort) {
	local := w.s.conn.LocalAddr().(*net.UDPAddr).IP
	if to.Addr().Unmap().Is4() && local.To4() != nil {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&w.name))
		v4.Family, v4.Port, v4.Addr = unix.AF_INET, ntohs(to.Port()), to.Addr().Unmap().As4()
		w.nameLen = unix.SizeofSockaddrInet4
		return
	}
	w.name.Family, w.name.Port, w.name.Addr = unix.AF_INET6, ntohs(to.Port()), to.Addr().As16()
	if zone := to.Addr().Zone(); zone != "" {
		if i, err := net.InterfaceByName(zone); err == nil {
			w.name.Scope_id = uint32(i.Index)
		}
	}
	w.nameLen = unix.SizeofSockaddrInet6
}

// DropWhenFull makes Send give up, with an error, what finds the socket's buffer
// full, instead of waiting.
func (w *Sender) DropWhenFull() { w.drop = true }

// Send sends pkts in order and tells how many left. It waits while the socket's
// buffer is full, and allocates nothing. pkts are not kept.
func (w *Sender) Send(pkts [][]byte) (int, error) {
	sent := 0
	for sent < len(pkts) {
		n, err := w.sendBatch(pkts[sent:min(len(pkts), sent+len(w.iovs))])
		sent += n
		if err == nil {
			continue
		}
		// A device that cannot checksum (EIO) or packets over the path's MTU
		// (EINVAL, EMSGSIZE) rule segments out; what was not sent goes singly.
		if w.segments && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)) {
			w.segments = false
			continue
		}
		return sent, err
	}
	return sent, nil
}

func (w *Sender) sendBatch(pkts [][]byte) (sent int, err error) {
	w.fill(pkts)
	w.from, w.errno = 0, 0
	err = w.s.raw.Write(w.write)
	for _, n := range w.counts[:w.from] {
		sent += n
	}
	if err == nil && w.errno != 0 {
		err = fmt.Errorf("sending from %s: %w", w.s.LocalAddr(), w.errno)
	}
	// The packets are the caller's: keep none alive.
	clear(w.iovs[:len(pkts)])
	return sent, err
}

// fill lays pkts out as messages, each a run of segments.
func (w *Sender) fill(pkts [][]byte) {
	w.hdrs, w.counts = w.hdrs[:0], w.counts[:0]
	for i := 0; i < len(pkts); {
		n := w.run(pkts[i:])
		for k, p := range pkts[i : i+n] {
			if len(p) > 0 {
				w.iovs[i+k].Base = &p[0]
			}
			w.iovs[i+k].SetLen(len(p))
		}
		m := len(w.hdrs)
		w.hdrs = append(w.hdrs, mmsghdr{})
		w.counts = append(w.counts, n)
		h := &w.hdrs[m].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&w.name)), w.nameLen
		h.Iov = &w.iovs[i]
		h.SetIovlen(n)
		if n > 1 {
			c := w.control[m*segmentControl : (m+1)*segmentControl]
			ch := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
			ch.Level, ch.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
			ch.SetLen(unix.CmsgLen(2))
			*(*uint16)(unsafe.Pointer(&c[unix.CmsgLen(0)])) = uint16(len(pkts[i]))
			h.Control = &c[0]
			h.SetControllen(segmentControl)
		}
		i += n
	}
}

// run is how many of pkts may leave as one message: equal lengths, but that the
// last may be shorter.
func (w *Sender) run(pkts [][]byte) int {
	if !w.segments || len(pkts[0]) == 0 {
		return 1
	}
	size, total, n := len(pkts[0]), 0, 0
	for n < len(pkts) && n < maxSegments && len(pkts[n]) > 0 && len(pkts[n]) <= size && total+len(pkts[n]) <= maxSegmentedBytes {
		total += len(pkts[n])
		n++
		if len(pkts[n-1]) < size {
			break
		}
	}
	return max(n, 1)
}
