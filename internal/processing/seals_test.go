package processing

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// serveSeals plays the key management service's part: content, unreadable, and a hash of
// it with its place.
func (k *fakeKMS) serveSeals(conn bus.Conn) {
	mark := func(p bus.SealPlace, content []byte) []byte {
		h := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d/%x", p.Kind, p.Stream, p.Version, content))
		return h[:]
	}
	veil := func(p bus.SealPlace, content []byte) []byte {
		out, stream := bytes.Clone(content), rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%v", p)))
		for i := range out {
			out[i] ^= byte(stream.Uint64())
		}
		return out
	}
	newest := map[string]uint64{} // of profiles and of settings
	of := func(p bus.SealPlace) string {
		if p.Kind == bus.SealedScores || p.Kind == bus.SealedWindows || p.Kind == bus.SealedContext || p.Kind == bus.SealedEpisode {
			return fmt.Sprint(p) // there are many
		}
		return p.Kind + string(p.Stream)
	}
	serve(k.t, conn, bus.KMSSeal, func(r bus.SealRequest) (bus.SealReply, error) {
		if len(r.Content) > bus.MaxSealed {
			k.t.Errorf("asked to seal %d bytes of %q", len(r.Content), r.Place.Kind)
		}
		return bus.SealReply{Sealed: append(mark(r.Place, r.Content), veil(r.Place, r.Content)...), Newest: newest[of(r.Place)]}, nil
	}, &k.mu)
	serve(k.t, conn, bus.KMSUnseal, func(r bus.UnsealRequest) (bus.UnsealReply, error) {
		if len(r.Sealed) < 32 {
			return bus.UnsealReply{}, bus.Refuse(bus.CodeUnauthorized, "it is cut")
		}
		content := veil(r.Place, r.Sealed[32:])
		if !bytes.Equal(mark(r.Place, content), r.Sealed[:32]) {
			return bus.UnsealReply{}, bus.Refuse(bus.CodeUnauthorized, "it was changed")
		}
		if r.Place.Version < newest[of(r.Place)] {
			return bus.UnsealReply{}, bus.Refuse(bus.CodeUnauthorized, "it was put back")
		}
		newest[of(r.Place)] = r.Place.Version
		return bus.UnsealReply{Content: content}, nil
	}, &k.mu)
}
