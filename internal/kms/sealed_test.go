package kms

import (
	"bytes"
	"context"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func TestSealedContentOpensForItsPlaceAlone(t *testing.T) {
	ctx := context.Background()
	s := newSite(t, store.NewMemory())
	place := bus.SealPlace{Kind: bus.SealedProfile, Stream: "cam-1", Version: 7}
	content := bytes.Repeat([]byte("gait"), 100)
	rep, err := s.seal(ctx, bus.SealRequest{Place: place, Content: content})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(rep.Sealed, []byte("gait")) {
		t.Error("sealed content shows")
	}
	s.restart()
	got, err := s.unseal(ctx, bus.UnsealRequest{Place: place, Sealed: rep.Sealed})
	if err != nil || !bytes.Equal(got.Content, content) {
		t.Errorf("after a restart: %q, %v", got.Content, err)
	}
	changed := bytes.Clone(rep.Sealed)
	changed[len(changed)/2] ^= 1
	for name, r := range map[string]bus.UnsealRequest{
		"changed":         {Place: place, Sealed: changed},
		"cut":             {Place: place, Sealed: rep.Sealed[:20]},
		"empty":           {Place: place},
		"another stream":  {Place: bus.SealPlace{Kind: place.Kind, Stream: "cam-2", Version: 7}, Sealed: rep.Sealed},
		"another version": {Place: bus.SealPlace{Kind: place.Kind, Stream: "cam-1", Version: 6}, Sealed: rep.Sealed},
	} {
		if _, err := s.unseal(ctx, r); bus.CodeOf(err) != bus.CodeUnauthorized {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]bus.SealRequest{
		"a media key": {Place: bus.SealPlace{Kind: "media-key", Stream: "cam-1"}, Content: content},
		"no kind":     {Place: bus.SealPlace{Stream: "cam-1"}, Content: content},
		"no stream":   {Place: bus.SealPlace{Kind: bus.SealedProfile}, Content: content},
		"too much":    {Place: place, Content: make([]byte, bus.MaxSealed+1)},
	} {
		if _, err := s.seal(ctx, r); bus.CodeOf(err) != bus.CodeBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What the store itself holds does not open through this door.
	e, err := s.kv.Get(ctx, signingKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.unseal(ctx, bus.UnsealRequest{Place: place, Sealed: e.Value}); bus.CodeOf(err) != bus.CodeUnauthorized {
		t.Errorf("a record of the key store: %v", err)
	}
}

// TestOlderVersionsDoNotComeBack, over a restart as well; and what was sealed but
// never opened does not keep the one before from opening.
func TestOlderVersionsDoNotComeBack(t *testing.T) {
	ctx := context.Background()
	s := newSite(t, store.NewMemory())
	seal := func(version uint64) (bus.SealPlace, bus.SealReply) {
		place := bus.SealPlace{Kind: bus.SealedProfile, Stream: "cam-1", Version: version}
		rep, err := s.seal(ctx, bus.SealRequest{Place: place, Content: []byte("gait")})
		if err != nil {
			t.Fatal(err)
		}
		return place, rep
	}
	open := func(p bus.SealPlace, r bus.SealReply) error {
		_, err := s.unseal(ctx, bus.UnsealRequest{Place: p, Sealed: r.Sealed})
		return err
	}
	p3, r3 := seal(3)
	p4, r4 := seal(4)
	if err := open(p3, r3); err != nil {
		t.Errorf("version 4 was never in use, and 3 does not open: %v", err)
	}
	if err := open(p4, r4); err != nil {
		t.Error(err)
	}
	s.restart()
	if err := open(p3, r3); bus.CodeOf(err) != bus.CodeUnauthorized {
		t.Errorf("version 3 after 4: %v", err)
	}
	if err := open(p4, r4); err != nil {
		t.Errorf("the newest, again: %v", err)
	}
	if _, r := seal(4); r.Newest != 4 {
		t.Errorf("newest is %d, want 4", r.Newest)
	}
	var err error
	for kind, again := range map[string]bool{bus.SealedAlerts: false, bus.SealedFleet: false, bus.SealedTuning: false, bus.SealedContext: true, bus.SealedScores: true} {
		var sealed [2]bus.SealReply
		place := bus.SealPlace{Kind: kind, Stream: bus.FleetPlace}
		for i := range sealed {
			place.Version = uint64(i + 1)
			if sealed[i], err = s.seal(ctx, bus.SealRequest{Place: place, Content: []byte("gait")}); err != nil {
				t.Fatal(err)
			}
			if err := open(place, sealed[i]); err != nil {
				t.Errorf("%s %d: %v", kind, i+1, err)
			}
		}
		place.Version = 1
		if err := open(place, sealed[0]); (err == nil) != again {
			t.Errorf("%s: version 1 after 2: %v", kind, err)
		}
	}
	other := p3
	other.Stream = "cam-2"
	rep, err := s.seal(ctx, bus.SealRequest{Place: other, Content: []byte("gait")})
	if err != nil || rep.Newest != 0 {
		t.Errorf("another stream: newest %d, %v", rep.Newest, err)
	}
}
