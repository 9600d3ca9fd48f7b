package kms

import (
	"bytes"
	"context"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// A device that was enrolled anew, perhaps because it was stolen, leaves sessions behind
// that were opened before. Nobody gets a key of them any more, and no lease: who asked
// for a key again and again would otherwise keep them on the air.
func TestSessionFromBeforeTheEnrolmentGetsNothing(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	tr := s.newRelay("t-1")
	req := bus.KMSReleaseRequest{
		Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: epoch,
		Transports: []bus.TransportReceiver{tr.word}, Marks: map[gk.TransportID][]byte{"t-1": bytes.Repeat([]byte{7}, 32)},
	}
	if rep, err := s.release(t.Context(), req); err != nil || rep.Words["t-1"] == nil {
		t.Fatalf("before: %d words, %v", len(rep.Words), err)
	}
	for _, c := range []struct { // one after the other: the restart finds what was enrolled before it
		name  string
		again func()
	}{
		{"enrolled anew", func() { s.enrolled("cam-1") }},
		{"revoked, then enrolled anew", func() { s.mustRevoke("cam-1"); s.enrolled("cam-1") }},
		{"after a restart", func() { s.restart() }},
	} {
		c.again()
		_, err := s.release(t.Context(), req)
		refused(t, err, bus.CodeRevoked, "enrolled")
		_, err = s.open(t.Context(), bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), SSRC: ssrcOf("cam-1", sid(1))})
		if bus.CodeOf(err) != bus.CodeRevoked {
			t.Errorf("%s: opened again: %v", c.name, err)
		}
	}
}

func (s *site) mustRevoke(id gk.DeviceID) {
	s.t.Helper()
	if _, err := s.revoke(context.Background(), bus.RevokeRequest{Device: id}); err != nil {
		s.t.Fatalf("revoke: %v", err)
	}
}

// Two tokens that name one stream were given out before either was used: the stream
// is the first device's that joins.
func TestStreamIsTheFirstsThatJoins(t *testing.T) {
	s := newSite(t, store.NewMemory())
	join := func(id gk.DeviceID, hash []byte) error {
		_, err := s.join(context.Background(), bus.JoinRequest{Device: id, Hash: hash, CSR: newCamera(t, id).csr})
		return err
	}
	hashes := map[gk.DeviceID][]byte{}
	for _, id := range []gk.DeviceID{"cam-1", "cam-2"} {
		hashes[id] = tokenHash()
		if _, err := s.enroll(t.Context(), bus.EnrollRequest{Device: id, Streams: []gk.StreamID{"stage", gk.StreamID(id)}, Hash: hashes[id]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := join("cam-1", hashes["cam-1"]); err != nil {
		t.Fatal(err)
	}
	refused(t, join("cam-2", hashes["cam-2"]), bus.CodeConflict, "stage", "cam-1")
	if _, err := s.entitled(t.Context(), "cam-2", "stage"); err == nil {
		t.Error("a stream has two devices")
	}
}
