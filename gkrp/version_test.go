package gkrp

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// The table has every pairing of two devices with three services, and a device
// of a version to come.
func TestChooseVersion(t *testing.T) {
	v := func(v ...Version) []Version { return v }
	for _, row := range []struct {
		name        string
		offer       []Version
		least, most Version
		want        Version
		ok          bool
	}{
		{"old device, old service", v(0), 0, 0, 0, true},
		{"old device, new service", v(0), 0, 1, 0, true},
		{"old device, raised minimum", v(0), 1, 1, 0, false},
		{"new device, old service", v(0, 1), 0, 0, 0, true},
		{"new device, new service", v(0, 1), 0, 1, 1, true},
		{"new device, raised minimum", v(0, 1), 1, 1, 1, true},
		{"the order says nothing", v(1, 0), 0, 1, 1, true},
		{"new device that left version 0, old service", v(1), 0, 0, 0, false},
		{"a version to come", v(0, 1, 2), 0, 1, 1, true},
		{"only versions to come", v(2, 3), 0, 1, 0, false},
	} {
		if got, ok := ChooseVersion(row.offer, row.least, row.most); got != row.want || ok != row.ok {
			t.Errorf("%s: %d, %v", row.name, got, ok)
		}
	}
}

// A device takes tags out of its reports unless version 1 was chosen and they
// were asked for, whatever its packet path collected.
func TestTagsOnlyWhereTheyWereAgreed(t *testing.T) {
	for _, row := range []struct {
		chosen Version
		asked  bool
		want   bool
	}{{0, false, false}, {0, true, false}, {1, false, false}, {1, true, true}, {2, true, true}, {3, true, true}} {
		d, fx := NewDevice(t0, Hello{Device: "cam-1", Stream: "cam-1", Session: testSession, Versions: []Version{0, 1, 2, 3}, Suites: []Suite{1}}, time.Second, time.Minute)
		h := fx[0].(Send).Message.(*Hello)
		fx = d.Step(t0, Heard{Message: &Challenge{Session: testSession, HelloHash: Hash(must(Encode(h))), Nonce: make([]byte, 16)}})
		proven := fx[0].(Send).Message.(*Hello)
		fx = d.Step(t0, Heard{Message: &Welcome{
			Session: testSession, HelloHash: Hash(must(Encode(proven))), Versions: []Version{0, 1, 2, 3}, Suites: []Suite{1}, Version: row.chosen, Suite: 1, Stream: "cam-1",
			Transports: []string{"a:1"}, Policy: Policy{ReportEveryMs: 1000, Tags: row.asked},
			Grant: must(Encode(&Grant{Stream: "cam-1", Session: testSession, Epoch: 1, Envelope: []byte{1}})),
		}})
		if s := fx[0].(Start); s.Version != row.chosen || s.Policy.Tags != row.want {
			t.Errorf("%+v: started with %+v", row, s)
		}
		d.Step(t0, Installed{Epoch: 1, Confirm: make([]byte, 32)})
		r := d.Step(t0, Sent{Report{From: 1, To: 3, Tags: make([]byte, 8), Ingress: &Ingress{SpanMs: 1000}, Encoder: &Encoder{}}})[0].(Send).Message.(*Report)
		if (r.Tags != nil) != row.want {
			t.Errorf("%+v: report with tags %x", row, r.Tags)
		}
		if (r.Ingress != nil) != (row.chosen >= 2) {
			t.Errorf("%+v: report with ingress %+v", row, r.Ingress)
		}
		if (r.Encoder != nil) != (row.chosen >= 3) {
			t.Errorf("%+v: report with encoder %+v", row, r.Encoder)
		}
	}
}

func TestLargestReport(t *testing.T) {
	s, v := identity(1)
	long := strings.Repeat("x", 63)
	scope := Scope{Device: gk.DeviceID(long), Stream: gk.StreamID(long)}
	r := &Report{
		Stream: scope.Stream, Session: testSession, Number: 1 << 62, Epoch: 1 << 31, From: gk.MaxIndex - MaxTags, To: gk.MaxIndex,
		Packets: 1 << 62, Bytes: 1 << 62, Renew: true, Tags: bytes.Repeat([]byte{0xff}, MaxTags*TagPrefix), Since: 1 << 62, Term: 1 << 62,
		Ingress: &Ingress{1 << 31, 1 << 62, 1 << 62, 1 << 31, 1 << 31, 1 << 62, 1 << 62, 1 << 62, 1 << 62, make([]byte, MaxMarks*MarkBytes)},
		Encoder: &Encoder{1 << 62, 1 << 31, Why(strings.Repeat("w", MaxWhy)), strings.Repeat("r", MaxRegime)},
	}
	wire, err := Sign(s, make([]byte, 64), nil, scope, r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(wire, Up)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.Verify(v, scope); err != nil {
		t.Error(err)
	}
	for _, n := range []int{1, 4, len(r.Tags) - 1, len(r.Tags) - 4} {
		bad := *r
		bad.Tags = slices.Clone(r.Tags[:n])
		if err := validate(&bad); err == nil {
			t.Errorf("%d bytes of tags for %d indices were accepted", n, MaxTags)
		}
	}
	for _, n := range []int{1, 7, (MaxMarks + 1) * MarkBytes} {
		bad := *r
		bad.Ingress = &Ingress{Marks: make([]byte, n)}
		if err := validate(&bad); err == nil {
			t.Errorf("%d bytes of marks were accepted", n)
		}
	}
}

func TestRecordKeepsEveryField(t *testing.T) {
	r := Record{Prekeys: [][]byte{{1}}, Rotations: 7, Took: time.Second, Term: 3}
	var got Record
	if err := decMode.Unmarshal(must(encMode.Marshal(r)), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Prekeys) != 1 || got.Rotations != 7 || got.Took != time.Second || got.Term != 3 {
		t.Errorf("%+v came back", got)
	}
}
