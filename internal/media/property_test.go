package media

import (
	"testing"

	"github.com/gaitkeeper/gaitkeeper"
	"pgregory.net/rapid"
)

// naive is the receive state without bounds or tricks.
type naive struct {
	tags    map[gaitkeeper.Index]uint32
	highest gaitkeeper.Index
}

func (n *naive) state(i gaitkeeper.Index) replayState {
	if _, seen := n.tags[i]; len(n.tags) > 0 && i+windowSize <= n.highest {
		return replayTooOld
	} else if seen {
		return replaySeen
	}
	return replayFresh
}

// TestReplayWindowMatchesNaiveModel walks the window over steps small and large.
func TestReplayWindowMatchesNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w replayWindow
		model := naive{tags: map[gaitkeeper.Index]uint32{}}
		base := gaitkeeper.Index(rapid.Uint64Range(0, uint64(gaitkeeper.MaxIndex)-1<<20).Draw(t, "base"))
		at := base
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			step := rapid.OneOf(rapid.Int64Range(-3, 3), rapid.Int64Range(-1100, 1100),
				rapid.Int64Range(0, 70000)).Draw(t, "step")
			at = gaitkeeper.Index(max(0, int64(at)+step))
			if got, want := w.state(at), model.state(at); got != want {
				t.Fatalf("index %d with highest %d: state %d, want %d", at, model.highest, got, want)
			}
			switch model.state(at) {
			case replaySeen:
				if w.tag(at) != model.tags[at] {
					t.Fatalf("index %d: tag %x, want %x", at, w.tag(at), model.tags[at])
				}
			case replayFresh:
				tag := rapid.Uint32().Draw(t, "tag")
				w.mark(at, tag)
				model.tags[at] = tag
				model.highest = max(model.highest, at)
			}
		}
	})
}

// naiveEstimate tries the three rollover counters of RFC 3711 §3.3.1 and takes
// the nearest index that exists.
func naiveEstimate(ref gaitkeeper.Index, seq uint16) gaitkeeper.Index {
	distance := func(i int64) int64 { return max(i-int64(ref), int64(ref)-i) }
	best := int64(-1)
	for _, roc := range []int64{int64(ref.ROC()), int64(ref.ROC()) - 1, int64(ref.ROC()) + 1} {
		if i := roc<<16 | int64(seq); roc >= 0 && (best < 0 || distance(i) < distance(best)) {
			best = i
		}
	}
	return gaitkeeper.Index(best)
}

func TestEstimateMatchesNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ref := gaitkeeper.Index(rapid.OneOf(
			rapid.Uint64Range(0, 1<<17), rapid.Uint64Range(0, uint64(gaitkeeper.MaxIndex))).Draw(t, "reference"))
		seq := rapid.Uint16().Draw(t, "seq")
		if got, want := estimate(ref, seq), naiveEstimate(ref, seq); got != want {
			t.Fatalf("estimate(%d, %d) = %d, want %d", ref, seq, got, want)
		}
	})
}

// TestOpenMatchesModel sends packets of two key holders through loss,
// duplication, reordering and forgery.
func TestOpenMatchesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, salt := testKey(5)
		open, _ := newOpener(key, salt, testSSRC, 9)
		first := gaitkeeper.Index(rapid.Uint64Range(0, 1<<40).Draw(t, "first"))
		open.Begin(first)
		model := naive{tags: map[gaitkeeper.Index]uint32{}}
		at := first
		for range rapid.IntRange(1, 60).Draw(t, "packets") {
			at = gaitkeeper.Index(max(int64(first), int64(at)+rapid.Int64Range(-40, 60).Draw(t, "step")))
			writer := rapid.Uint32Range(1, 2).Draw(t, "writer")
			seal, _ := newSealer(key, salt, testSSRC, 9)
			pkt, err := seal.Seal(nil, header(at), []byte{byte(writer), 2, 3}, at)
			if err != nil {
				t.Fatal(err)
			}
			want := OK
			forge := rapid.Bool().Draw(t, "forge")
			switch state := model.state(at); {
			case state == replayTooOld:
				want = TooOld
			case forge:
				pkt[len(pkt)-mkiSize-tagSize] ^= 1
				want = AuthFail
			case state == replaySeen && model.tags[at] == writer:
				want = Duplicate
			case state == replaySeen:
				want = TwoWriters
			default:
				model.tags[at] = writer
				model.highest = max(model.highest, at)
			}
			opened, v := open.Open(nil, pkt)
			if v != want {
				t.Fatalf("index %d (highest %d): %v, want %v", at, model.highest, v, want)
			}
			if v == OK && (opened.Index != at || opened.Payload[0] != byte(writer)) {
				t.Fatalf("opened %d as %d", at, opened.Index)
			}
		}
	})
}
