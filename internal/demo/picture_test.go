package demo

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// The picture is one whole SVG that needs nothing else, and says what happened when:
// a story with a new key, and one that must not have any.
func TestPicture(t *testing.T) {
	for _, c := range []struct {
		kind, place string
		tell        func(s *story, onset time.Time)
		want        []string
	}{
		{"swap", Input, func(s *story, o time.Time) {
			e := alarm("source", o.Add(time.Second))
			e.Detail["kind"], e.Detail["score"], e.Detail["evidence"] = "grammar", "1.50", "<grammar>"
			s.service(e)
			rotate(s, o.Add(1010*time.Millisecond))
		}, []string{
			"--attack swap --from input", "ALARM, class source: grammar", "epoch 2", "1.0 s: ALARM, class source",
			"its first packet is opened", "Alarm of class source after 1.0 s", "&lt;grammar&gt;", "limit: 1 is an alarm",
		}},
		{"mitm", Path, func(*story, time.Time) {}, []string{"No alarm and no new key"}},
		{"swap", Input, func(*story, time.Time) {}, []string{"Not as promised"}},
	} {
		sum := played(t, c.kind, c.place, c.tell)
		if sum.Picture() != nil {
			t.Error("a picture that nobody asked for")
		}
		for at := time.Duration(0); at < 40*time.Second; at += time.Second / 4 {
			sum.trace = append(sum.trace, moment{at: at, score: 0.2, delivered: int(at / time.Millisecond)})
		}
		svg := string(sum.Picture())
		dec := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", c.kind, err)
			}
		}
		for _, want := range c.want {
			if !strings.Contains(svg, want) {
				t.Errorf("%s: no %q in %s", c.kind, want, svg)
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") || strings.Contains(svg, "href") {
			t.Errorf("%s: %s", c.kind, svg)
		}
	}
}

// What accuses stands first in the evidence, whatever else was noticed.
func TestEvidenceNamesWhatAccuses(t *testing.T) {
	for _, c := range []struct{ class, kind, evidence, want string }{
		{"source", "volume", "volume: is low", "volume: is low"},
		{"source", "volume", "z-score: is high", "volume: score 1.10 at sensitivity 0.8; z-score: is high"},
		{"path", "bottleneck", "", "bottleneck: score 1.10 at sensitivity 0.8"},
		{"proof", "two-writers", "two packets", "two packets"},
	} {
		e := gk.Event{Detail: map[string]string{"class": c.class, "kind": c.kind, "evidence": c.evidence, "score": "1.10"}}
		if got := said(e); got != c.want {
			t.Errorf("%+v gives %q", c, got)
		}
	}
}
