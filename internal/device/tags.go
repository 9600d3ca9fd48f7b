package device

import (
	"slices"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// tagsHurry is how many tags are listed before the report that takes them should
// leave early, whatever its time: there is room left for what comes meanwhile.
const tagsHurry = gkrp.MaxTags / 2

// tagList is the beginning of the tag of every packet since the last report, in
// the order of the indices; an index that was not used has zeros. Adding to it
// allocates nothing. A list that overflows is given up until the next report:
// half a list would accuse the packets that it leaves out.
type tagList struct {
	on   bool
	lost bool
	b    []byte // room for gkrp.MaxTags, made when first wanted
}

// begin starts anew for another session, which wants tags or does not.
func (l *tagList) begin(on bool) {
	l.on, l.lost, l.b = on, false, l.b[:0]
	if on && cap(l.b) == 0 {
		l.b = make([]byte, 0, gkrp.MaxTags*gkrp.TagPrefix)
	}
}

// add lists a sealed packet that lies at places after the list's beginning.
func (l *tagList) add(at int, pkt []byte) {
	if !l.on || l.lost {
		return
	}
	at *= gkrp.TagPrefix
	if at+gkrp.TagPrefix > cap(l.b) {
		l.lost = true
		return
	}
	from := len(l.b)
	l.b = l.b[:at]
	if from < at {
		clear(l.b[from:])
	}
	tag := pkt[len(pkt)-media.Overhead:]
	l.b = append(l.b, tag[:gkrp.TagPrefix]...)
}

// filling reports whether the list should be taken soon.
func (l *tagList) filling() bool { return l.lost || len(l.b) >= tagsHurry*gkrp.TagPrefix }

// take gives a copy of the list, nil where it is not complete, and empties it.
func (l *tagList) take() []byte {
	var b []byte
	if !l.lost && len(l.b) > 0 {
		b = slices.Clone(l.b)
	}
	l.lost, l.b = false, l.b[:0]
	return b
}
