package device

import (
	"bytes"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// sealedLike is a packet whose tag begins with b.
func sealedLike(b byte) []byte {
	return append(append(make([]byte, 12), bytes.Repeat([]byte{b}, gkrp.TagPrefix)...), make([]byte, media.Overhead-gkrp.TagPrefix)...)
}

func TestTagListKeepsPlaces(t *testing.T) {
	var l tagList
	l.add(0, sealedLike(1))
	if l.take() != nil {
		t.Error("tags are listed that nobody wants")
	}
	l.begin(true)
	l.add(0, sealedLike(1))
	l.add(3, sealedLike(2)) // two indices were not used
	if got, want := l.take(), []byte{1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2}; !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	l.add(1, sealedLike(9))
	if got, want := l.take(), []byte{0, 0, 0, 0, 9, 9, 9, 9}; !bytes.Equal(got, want) {
		t.Errorf("what was there before shows: %x, want %x", got, want)
	}
	l.begin(false)
	l.add(0, sealedLike(1))
	if l.take() != nil || l.filling() {
		t.Error("tags of a session that did not ask")
	}
}

func TestTagListThatFills(t *testing.T) {
	var l tagList
	l.begin(true)
	for i := range gkrp.MaxTags {
		l.add(i, sealedLike(7))
		if l.filling() != (i+1 >= tagsHurry) {
			t.Fatalf("filling is %v after %d", l.filling(), i+1)
		}
	}
	r := gkrp.Report{Stream: "s", To: gkrp.MaxTags, Tags: l.take()}
	if len(r.Tags) != gkrp.MaxTags*gkrp.TagPrefix {
		t.Fatalf("%d bytes of tags", len(r.Tags))
	}
	for i := range gkrp.MaxTags + 1 {
		l.add(i, sealedLike(7))
	}
	if !l.filling() || l.take() != nil {
		t.Error("a list with packets missing was given")
	}
	l.add(0, sealedLike(3))
	if got := l.take(); len(got) != gkrp.TagPrefix {
		t.Errorf("the list after one that was lost has %d bytes", len(got))
	}
}
