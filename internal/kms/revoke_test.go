package kms

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func (s *site) codes(t *testing.T, refs ...bus.SessionRef) []bus.Code {
	t.Helper()
	rep, err := s.standing(t.Context(), bus.StandingRequest{Sessions: refs})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Lease != defaultLease {
		t.Errorf("lease of %v", rep.Lease)
	}
	return rep.Codes
}

func TestStanding(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1", "stage", "yard")
	s.enrolled("cam-2")
	s.mustOpen(c, "stage", sid(1), 0)
	s.mustOpen(c, "yard", sid(2), 0)
	refs := []bus.SessionRef{
		{Device: "cam-1", Stream: "stage", Session: sid(1)},
		{Device: "cam-1", Stream: "yard", Session: sid(2)},
		{Device: "cam-1", Stream: "stage", Session: sid(9)},
		{Device: "cam-2", Stream: "stage", Session: sid(1)},
		{Device: "cam-9", Stream: "stage", Session: sid(1)},
		{Device: "cam-1", Stream: "#", Session: sid(1)},
	}
	want := []bus.Code{"", "", bus.CodeNotFound, bus.CodeRevoked, bus.CodeRevoked, bus.CodeRevoked}
	if got := s.codes(t, refs...); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	s.restart()
	if got := s.codes(t, refs...); !slices.Equal(got, want) {
		t.Errorf("after a restart: got %q, want %q", got, want)
	}
	if _, err := s.setState(t.Context(), bus.KMSStateRequest{Stream: "yard", Session: sid(2), State: bus.KeyDestroyed}); err != nil {
		t.Fatal(err)
	}
	if got := s.codes(t, refs[:2]...); !slices.Equal(got, []bus.Code{"", bus.CodeNotFound}) {
		t.Errorf("of an ended session: %q", got)
	}

	// Enrolled anew, perhaps because it was stolen: what runs under the old
	// enrolment is no longer trusted, what is opened under the new one is.
	c = s.enrolled("cam-1", "stage", "yard")
	s.mustOpen(c, "stage", sid(3), 0)
	if got := s.codes(t, refs[0], bus.SessionRef{Device: "cam-1", Stream: "stage", Session: sid(3)}); !slices.Equal(got, []bus.Code{bus.CodeRevoked, ""}) {
		t.Errorf("enrolled anew: %q", got)
	}
	if _, err := s.revoke(t.Context(), bus.RevokeRequest{Device: "cam-1"}); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if got := s.codes(t, bus.SessionRef{Device: "cam-1", Stream: "stage", Session: sid(3)}); !slices.Equal(got, []bus.Code{bus.CodeRevoked}) {
		t.Errorf("revoked: %q", got)
	}
	_, err := s.standing(t.Context(), bus.StandingRequest{Sessions: make([]bus.SessionRef, bus.MaxStanding+1)})
	refused(t, err, bus.CodeBadRequest)
}

// A revocation that comes again, when the device was enrolled anew since, is the one from
// before; another one is not.
func TestLateRevocationSparesANewEnrolment(t *testing.T) {
	s := newSite(t, store.NewMemory())
	s.enrolled("cam-1", "stage")
	revoke := func(asking string) bool {
		t.Helper()
		rep, err := s.revoke(bus.WithAsking(t.Context(), asking), bus.RevokeRequest{Device: "cam-1"})
		if err != nil {
			t.Fatal(err)
		}
		return rep.Device.Revoked
	}
	if !revoke("a") || !revoke("a") {
		t.Error("the device is not revoked")
	}
	s.enrolled("cam-1", "stage")
	if revoke("a") {
		t.Error("a late repetition revoked the new enrolment")
	}
	if !revoke("b") {
		t.Error("the new enrolment is not revoked")
	}
	s.enrolled("cam-1", "stage")
	if !revoke("") || !revoke("") {
		t.Error("who does not repeat is not heard")
	}
}

// The word that keys may serve on is signed, for the transport and the beat that
// were named, and for those sessions alone that are in good standing.
func TestLeasesAreSigned(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1", "stage", "yard")
	s.mustOpen(c, "stage", sid(1), 0)
	s.mustOpen(c, "yard", sid(2), 0)
	verifier, err := gkrp.NewVerifier(s.signer.public)
	if err != nil {
		t.Fatal(err)
	}
	stage := bus.SessionRef{Device: "cam-1", Stream: "stage", Session: sid(1)}
	ask := bus.StandingRequest{Transport: "t-1", Mark: bytes.Repeat([]byte{7}, 32), Sessions: []bus.SessionRef{stage, {Device: "cam-1", Stream: "yard", Session: sid(9)}}}
	rep, err := s.standing(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	l, err := gkrp.OpenLease(verifier, rep.Word)
	if err != nil || l.Transport != "t-1" || !bytes.Equal(l.Mark, ask.Mark) || l.For() != defaultLease || !slices.Equal(l.Sessions, []gkrp.LeaseSession{{Stream: "stage", Session: sid(1)}}) {
		t.Errorf("%+v, %v", l, err)
	}
	tr := s.newRelay("t-1")
	release := bus.KMSReleaseRequest{Device: "cam-1", Stream: "yard", Session: sid(2), Transports: []bus.TransportReceiver{tr.word}, Marks: map[gk.TransportID][]byte{"t-1": ask.Mark, "t-2": ask.Mark}}
	released, err := s.release(t.Context(), release)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = gkrp.OpenLease(verifier, released.Words["t-1"]); err != nil || !l.Covers("yard", sid(2)) || l.Covers("stage", sid(1)) || len(released.Words) != 1 {
		t.Errorf("%+v, %v, %d words", l, err, len(released.Words))
	}
	if _, err := s.revoke(t.Context(), bus.RevokeRequest{Device: "cam-1"}); err != nil {
		t.Fatal(err)
	}
	if rep, err := s.standing(t.Context(), ask); err != nil || rep.Word != nil {
		t.Errorf("a lease for a revoked device: %+v, %v", rep, err)
	}
	_, err = s.release(t.Context(), release)
	refused(t, err, bus.CodeRevoked)
}

// Where another instance may serve by now, and know of a revocation, leases end one
// length after that became possible, and none is signed past it.
func TestLeasesAreShorterWhereAnotherMayServe(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1", "stage")
	s.mustOpen(c, "stage", sid(1), 0)
	tr := s.newRelay("t-1")
	verifier, err := gkrp.NewVerifier(s.signer.public)
	if err != nil {
		t.Fatal(err)
	}
	var unsure time.Duration
	s.cfg.Unsure = func() time.Duration { return unsure }
	mark := bytes.Repeat([]byte{7}, 32)
	ask := bus.StandingRequest{Transport: "t-1", Mark: mark, Sessions: []bus.SessionRef{{Device: "cam-1", Stream: "stage", Session: sid(1)}}}
	release := bus.KMSReleaseRequest{Device: "cam-1", Stream: "stage", Session: sid(1), Transports: []bus.TransportReceiver{tr.word}, Marks: map[gk.TransportID][]byte{"t-1": mark}}
	for _, unsure = range []time.Duration{0, 400 * time.Millisecond, defaultLease - time.Second, defaultLease, time.Hour, math.MaxInt64} {
		standing, err := s.standing(t.Context(), ask)
		if unsure >= defaultLease {
			refused(t, err, bus.CodeUnavailable)
			_, err = s.release(t.Context(), release)
			refused(t, err, bus.CodeUnavailable)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		released, err := s.release(t.Context(), release)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range [][]byte{standing.Word, released.Words["t-1"]} {
			if l, err := gkrp.OpenLease(verifier, word); err != nil || l.For() != defaultLease-unsure {
				t.Errorf("unsure for %v: %+v, %v", unsure, l, err)
			}
		}
	}
}

func TestRevocationVoidsTheToken(t *testing.T) {
	s := newSite(t, store.NewMemory())
	s.enrolled("cam-1")
	hash := tokenHash()
	if _, err := s.enroll(t.Context(), bus.EnrollRequest{Device: "cam-1", Hash: hash}); err != nil {
		t.Fatal(err)
	}
	rep, err := s.revoke(t.Context(), bus.RevokeRequest{Device: "cam-1"})
	if err != nil || !rep.Device.Revoked || rep.Lease != defaultLease || !slices.Equal(rep.Device.Streams, []gk.StreamID{"cam-1"}) {
		t.Errorf("%+v, %v", rep, err)
	}
	_, err = s.join(t.Context(), bus.JoinRequest{Device: "cam-1", Hash: hash, CSR: newCamera(t, "cam-1").csr})
	refused(t, err, bus.CodeNotFound)
	if again, err := s.revoke(t.Context(), bus.RevokeRequest{Device: "cam-1"}); err != nil || !again.Device.Revoked {
		t.Errorf("revoked again: %+v, %v", again, err)
	}
	c := s.enrolled("cam-1")
	s.mustOpen(c, "cam-1", sid(1), 0)
}

func TestDevicesAreListedInPages(t *testing.T) {
	s := newSite(t, store.NewMemory())
	for i := range bus.MaxDevices + 3 {
		id := gk.DeviceID(fmt.Sprintf("cam-%04d", i))
		s.remember(id, cachedDevice{deviceRecord: deviceRecord{DeviceRecord: bus.DeviceRecord{Device: id}}, rev: 1})
	}
	first, err := s.listDevices(t.Context(), bus.DevicesRequest{})
	if err != nil || len(first.Devices) != bus.MaxDevices || !first.More || first.Devices[1].Device != "cam-0001" {
		t.Errorf("%d records, more %v, %v", len(first.Devices), first.More, err)
	}
	rest, err := s.listDevices(t.Context(), bus.DevicesRequest{After: first.Devices[bus.MaxDevices-1].Device})
	if err != nil || len(rest.Devices) != 3 || rest.More {
		t.Errorf("%d records, more %v, %v", len(rest.Devices), rest.More, err)
	}
}

func TestAuditHeadsOnlyGoForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, store.NewMemory())
		hash := func(text string) []byte { h := sha256.Sum256([]byte(text)); return h[:] }
		head := func(trail string, lines uint64, last string) bus.AuditHead {
			return bus.AuditHead{Trail: hash(trail), Lines: lines, Head: hash(last)}
		}
		var serial uint64
		sign := func(h bus.AuditHead) error {
			t.Helper()
			rep, err := s.signHead(t.Context(), h)
			if err != nil {
				return err
			}
			if rep.Serial != serial+1 {
				t.Errorf("serial %d after %d", rep.Serial, serial)
			}
			serial = rep.Serial
			if !ed25519.Verify(rep.Public, bus.AuditHeadBytes(h, rep.Serial, rep.At), rep.Signature) {
				t.Error("the signature does not verify")
			}
			h.Lines++
			if ed25519.Verify(rep.Public, bus.AuditHeadBytes(h, rep.Serial, rep.At), rep.Signature) {
				t.Error("the signature does for another head")
			}
			return nil
		}
		for _, h := range []bus.AuditHead{head("a", 1, "1"), head("a", 1, "1"), head("a", 5, "5")} {
			if err := sign(h); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		refused(t, sign(head("a", 4, "4")), bus.CodeConflict, "has 4 lines, but 5 were signed")
		refused(t, sign(head("a", 5, "x")), bus.CodeConflict, "line 5")
		refused(t, sign(head("a", 0, "x")), bus.CodeBadRequest)
		refused(t, sign(bus.AuditHead{Lines: 1, Trail: hash("a"), Head: []byte("short")}), bus.CodeBadRequest)
		s.restart()
		refused(t, sign(head("a", 4, "4")), bus.CodeConflict)
		if err := sign(head("b", 2, "2")); err != nil {
			t.Errorf("a new trail: %v", err)
		}
	})
}
