package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket/layers"
)

// Flow is where a stream's packets go. Zero fields match anything.
type Flow struct {
	Addr netip.Addr
	Port uint16
}

// ParseFlow reads PORT or ADDRESS:PORT.
func ParseFlow(s string) (Flow, error) {
	var f Flow
	host, port, found := "", s, false
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port, found = s[:i], s[i+1:], true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return f, fmt.Errorf("flow %q is neither PORT nor ADDRESS:PORT", s)
	}
	f.Port = uint16(n)
	if found {
		if f.Addr, err = netip.ParseAddr(strings.Trim(host, "[]")); err != nil {
			return f, fmt.Errorf("flow %q is neither PORT nor ADDRESS:PORT", s)
		}
	}
	return f, nil
}

func (f Flow) matches(o Flow) bool {
	return (f.Port == 0 || f.Port == o.Port) && (!f.Addr.IsValid() || f.Addr == o.Addr)
}

func (f Flow) String() string {
	if !f.Addr.IsValid() {
		return strconv.Itoa(int(f.Port))
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String()
}

type udp struct {
	flow    Flow
	length  int    // of the payload on the wire
	payload []byte // as far as captured
}

// parseUDP finds the UDP payload of a link-layer frame, which may be cut: Ethernet, Linux
// "any" (both), BSD loopback, PPP, bare IP; in VLANs (also in one another), MPLS labels and
// PPPoE. Later fragments of an IP packet have no UDP header and are left out.
func parseUDP(link layers.LinkType, b []byte) (udp, bool) {
	var proto uint16
	switch link {
	case layers.LinkTypeEthernet:
		if len(b) < 14 {
			return udp{}, false
		}
		proto, b = binary.BigEndian.Uint16(b[12:]), b[14:]
	case layers.LinkTypeLinuxSLL:
		if len(b) < 16 {
			return udp{}, false
		}
		proto, b = binary.BigEndian.Uint16(b[14:]), b[16:]
	case linkSLL2:
		if len(b) < 20 {
			return udp{}, false
		}
		proto, b = binary.BigEndian.Uint16(b), b[20:]
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		if len(b) < 5 {
			return udp{}, false
		}
		b = b[4:]
	case layers.LinkTypePPP, layers.LinkTypePPP_HDLC:
		proto, b = ppp(b)
	}
	proto, b = unwrap(proto, b)
	if len(b) == 0 {
		return udp{}, false
	}
	switch {
	case b[0]>>4 == 4 && (proto == etherIPv4 || proto == 0):
		return parseIPv4(b)
	case b[0]>>4 == 6 && (proto == etherIPv6 || proto == 0):
		return parseIPv6(b)
	}
	return udp{}, false
}

// EtherTypes.
const (
	etherIPv4          = 0x0800
	etherIPv6          = 0x86dd
	etherVLAN          = 0x8100 // IEEE 802.1Q
	etherService       = 0x88a8 // IEEE 802.1ad, around it
	etherServiceOld    = 0x9100 // and before that was written
	etherMPLS          = 0x8847 // RFC 3032
	etherMPLSMulticast = 0x8848
	etherPPPoE         = 0x8864 // RFC 2516, of a session
	etherNone          = 0xffff // reserved: nothing that is read
)

// unwrap takes off what a provider's network puts between Ethernet and IP.
func unwrap(proto uint16, b []byte) (uint16, []byte) {
	for {
		switch {
		case len(b) < 4:
			return etherNone, nil
		case proto == etherVLAN || proto == etherService || proto == etherServiceOld:
			proto, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		case proto == etherMPLS || proto == etherMPLSMulticast:
			if bottom := b[2]&1 == 1; bottom {
				proto = 0 // IP, of a version that its first octet says
			}
			b = b[4:]
		case proto == etherPPPoE && len(b) >= 6:
			proto, b = ppp(b[6:])
		default:
			return proto, b
		}
	}
}

// ppp reads the protocol of a PPP frame (RFC 1661 section 2), with address and control or
// without, as an EtherType.
func ppp(b []byte) (uint16, []byte) {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 { // RFC 1662 section 3.1
		b = b[2:]
	}
	if len(b) < 2 {
		return etherNone, nil
	}
	switch proto := binary.BigEndian.Uint16(b); proto {
	case 0x0021:
		return etherIPv4, b[2:]
	case 0x0057:
		return etherIPv6, b[2:]
	case 0x0281:
		return etherMPLS, b[2:]
	}
	return etherNone, nil
}

// linkSLL2 is LINKTYPE_LINUX_SLL2, which capturing on "any" yields.
const linkSLL2 = layers.LinkType(276)

const protocolUDP = 17

func parseIPv4(b []byte) (udp, bool) {
	if len(b) < 20 || b[9] != protocolUDP || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return udp{}, false
	}
	size := int(b[0]&15) * 4
	if size < 20 || len(b) < size {
		return udp{}, false
	}
	return parseUDPHeader(netip.AddrFrom4([4]byte(b[16:20])), b[size:])
}

func parseIPv6(b []byte) (udp, bool) {
	if len(b) < 40 {
		return udp{}, false
	}
	dst, next := netip.AddrFrom16([16]byte(b[24:40])), b[6]
	b = b[40:]
	for next == 0 || next == 43 || next == 44 || next == 51 || next == 60 { // options, routing, fragments (RFC 8200 §4), authentication (RFC 4302)
		if len(b) < 8 {
			return udp{}, false
		}
		size := 8 + 8*int(b[1])
		if next == 51 {
			size = 8 + 4*int(b[1])
		}
		if next == 44 {
			if size = 8; binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				return udp{}, false
			}
		}
		if len(b) < size {
			return udp{}, false
		}
		next, b = b[0], b[size:]
	}
	if next != protocolUDP {
		return udp{}, false
	}
	return parseUDPHeader(dst, b)
}

func parseUDPHeader(dst netip.Addr, b []byte) (udp, bool) {
	if len(b) < 8 {
		return udp{}, false
	}
	length := int(binary.BigEndian.Uint16(b[4:])) - 8
	if length < 0 {
		return udp{}, false
	}
	return udp{
		flow:    Flow{Addr: dst, Port: binary.BigEndian.Uint16(b[2:])},
		length:  length,
		payload: b[8:min(len(b), 8+length)],
	}, true
}
