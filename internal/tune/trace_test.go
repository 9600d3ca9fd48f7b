package tune

import (
	"bytes"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

func TestTraceReadsBack(t *testing.T) {
	s := newStream(1, 0.4, 0.5).quiet(0.2)
	s.trace.Add([]episode.Level{1, 2, 3, 4, 127}, Wide|Excused)
	b, err := s.trace.Append([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadTrace(b[1:])
	if err != nil {
		t.Fatal(err)
	}
	if !got.From.Equal(s.trace.From) || !got.Layout.Equal(layout) || !bytes.Equal(got.rows, s.trace.rows) {
		t.Error("it reads back as another trace")
	}
}

func FuzzReadTrace(f *testing.F) {
	b, err := newStream(1, 0.4, 0.5).quiet(0.01).trace.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := ReadTrace(b)
		if err != nil {
			return
		}
		NewReplayer(tr.Layout, Plain).Alarms(tr, DefaultParams())
		again, err := tr.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ReadTrace(again)
		if err != nil || !bytes.Equal(back.rows, tr.rows) {
			t.Fatalf("it does not read back: %v", err)
		}
	})
}
