package processing

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// serveSeals plays the key management service's part: content and a hash of it
// with its place.
func (k *fakeKMS) serveSeals(conn bus.Conn) {
	mark := func(p bus.SealPlace, content []byte) []byte {
		h := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d/%x", p.Kind, p.Stream, p.Version, content))
		return h[:]
	}
	newest := map[string]uint64{} // of profiles and of settings
	of := func(p bus.SealPlace) string {
		if p.Kind == bus.SealedScores || p.Kind == bus.SealedWindows || p.Kind == bus.SealedContext {
			return fmt.Sprint(p) // there are many
		}
		return p.Kind + string(p.Stream)
	}
	serve(k.t, conn, bus.KMSSeal, func(r bus.SealRequest) (bus.SealReply, error) {
		if len(r.Content) > bus.MaxSealed {
			k.t.Errorf("asked to seal %d bytes of %q", len(r.Content), r.Place.Kind)
		}
		return bus.SealReply{Sealed: append(mark(r.Place, r.Content), r.Content...), Newest: newest[of(r.Place)]}, nil
	}, &k.mu)
	serve(k.t, conn, bus.KMSUnseal, func(r bus.UnsealRequest) (bus.UnsealReply, error) {
		if len(r.Sealed) < 32 || !bytes.Equal(mark(r.Place, r.Sealed[32:]), r.Sealed[:32]) {
			return bus.UnsealReply{}, bus.Refuse(bus.CodeUnauthorized, "it was changed")
		}
		if r.Place.Version < newest[of(r.Place)] {
			return bus.UnsealReply{}, bus.Refuse(bus.CodeUnauthorized, "it was put back")
		}
		newest[of(r.Place)] = r.Place.Version
		return bus.UnsealReply{Content: r.Sealed[32:]}, nil
	}, &k.mu)
}
