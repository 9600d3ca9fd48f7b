package transport

import "time"

// Judge is [Detached.Packet], and tells why the packet was left out: one of the
// causes that a status counts, or "" where it was taken.
func (d *Detached) Judge(now time.Time, datagram []byte) string {
	before := d.counted()
	d.Packet(now, datagram)
	for c, n := range d.counted() {
		if n > before[c] {
			return cause(c).String()
		}
	}
	return ""
}

// counted adds up what was left out.
func (d *Detached) counted() counts {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	all := d.s.outsiders
	for _, ses := range d.s.routes {
		for c, n := range ses.counts {
			all[c] += n
		}
	}
	return all
}
