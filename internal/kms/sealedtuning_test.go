package kms

import (
	"context"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// TestTuningOpensForItsPlaceAlone: labels and settings, scores and recorded windows
// open as what they are, for whom, in which version, and as nothing else.
func TestTuningOpensForItsPlaceAlone(t *testing.T) {
	ctx := context.Background()
	s := newSite(t, store.NewMemory())
	kinds := []string{bus.SealedProfile, bus.SealedTuning, bus.SealedScores, bus.SealedWindows, bus.SealedEpisode}
	for _, kind := range kinds[1:] {
		place := bus.SealPlace{Kind: kind, Stream: "cam-1", Version: 7}
		rep, err := s.seal(ctx, bus.SealRequest{Place: place, Content: []byte("gait of " + kind)})
		if err != nil {
			t.Fatal(err)
		}
		elsewhere := []bus.SealPlace{
			{Kind: kind, Stream: "cam-2", Version: 7}, {Kind: kind, Stream: "cam-1", Version: 6}, {Kind: kind, Stream: "cam-1", Version: 8},
		}
		for _, other := range kinds {
			if other != kind {
				elsewhere = append(elsewhere, bus.SealPlace{Kind: other, Stream: "cam-1", Version: 7})
			}
		}
		for _, p := range elsewhere {
			if _, err := s.unseal(ctx, bus.UnsealRequest{Place: p, Sealed: rep.Sealed}); bus.CodeOf(err) != bus.CodeUnauthorized {
				t.Errorf("%+v opens as %+v: %v", place, p, err)
			}
		}
		got, err := s.unseal(ctx, bus.UnsealRequest{Place: place, Sealed: rep.Sealed})
		if err != nil || string(got.Content) != "gait of "+kind {
			t.Errorf("%s: %q, %v", kind, got.Content, err)
		}
	}
}

// TestOlderSettingsDoNotComeBack: settings that were in use once are refused when
// newer ones were, over a restart. Of scores and windows any part may be read in any
// order: each is a version of its own.
func TestOlderSettingsDoNotComeBack(t *testing.T) {
	ctx := context.Background()
	for kind, refused := range map[string]bool{bus.SealedTuning: true, bus.SealedScores: false, bus.SealedWindows: false, bus.SealedEpisode: false} {
		s := newSite(t, store.NewMemory())
		var sealed [3]bus.UnsealRequest
		for v := range sealed {
			sealed[v].Place = bus.SealPlace{Kind: kind, Stream: "cam-1", Version: uint64(v + 1)}
			rep, err := s.seal(ctx, bus.SealRequest{Place: sealed[v].Place, Content: []byte("gait")})
			if err != nil {
				t.Fatal(err)
			}
			sealed[v].Sealed = rep.Sealed
			if _, err := s.unseal(ctx, sealed[v]); err != nil {
				t.Fatalf("%s, version %d: %v", kind, v+1, err)
			}
		}
		s.restart()
		for _, r := range sealed[:2] {
			if _, err := s.unseal(ctx, r); (err != nil) != refused || refused && bus.CodeOf(err) != bus.CodeUnauthorized {
				t.Errorf("%s, version %d after 3: %v", kind, r.Place.Version, err)
			}
		}
		if _, err := s.unseal(ctx, sealed[2]); err != nil {
			t.Errorf("%s, the newest: %v", kind, err)
		}
	}
}
