package detect

import "github.com/gaitkeeper/gaitkeeper/internal/feature"

// hopsPerSecond is the number of hops in a second.
const hopsPerSecond = 4

// Scales in hops.
const (
	second   = hopsPerSecond
	fourSec  = 4 * hopsPerSecond
	tenSec   = 10 * hopsPerSecond
	gateHops = 7 * hopsPerSecond
)

// View is what a detector sees of one hop: the hop itself, sums over the last 1, 4
// and 10 s, without words, and the numbers of the sums. The windows belong to the view.
type View struct {
	Hop      feature.Window
	S1, S4   feature.Window
	S10      feature.Window
	V1, V4   feature.Vector
	OK1, OK4 bool // the vector means something
	Full     bool // ten seconds are there
	Index    int  // number of the hop in the stream
	// Said is the score from which the detector asked puts its evidence into words:
	// its gain comes afterwards.
	Said float64
	// Disturbed: within the last 7 s there was a silence or loss beyond the
	// baseline's. Timing and volume then say nothing about the source.
	Disturbed bool
}

// viewer builds views.
type viewer struct {
	one, four, ten *slider
	view           View
}

func newViewer() *viewer {
	return &viewer{one: newSlider(second), four: newSlider(fourSec), ten: newSlider(tenSec)}
}

func (r *viewer) push(w *feature.Window) *View {
	v := &r.view
	v.Hop = *w
	r.one.push(&w.Sums, &v.S1.Sums)
	r.four.push(&w.Sums, &v.S4.Sums)
	v.Full = r.ten.push(&w.Sums, &v.S10.Sums)
	v.V1, v.OK1 = v.S1.Vector()
	v.V4, v.OK4 = v.S4.Vector()
	v.Index++
	return v
}

// gate notes a disturbance of the path, as the regime's baseline knows it.
func (r *regime) gate(v *View) {
	w, p := &v.Hop, r.profile
	silent := w.Packets == 0 || float64(w.MaxGap) > 1.5*p.MaxGap+150e6
	lossy := float64(w.Lost) > 1+2*p.MaxLost
	jumped := w.Jumps > 0
	if silent || lossy || jumped {
		r.quiet = 0
	} else {
		r.quiet++
	}
	v.Disturbed = r.quiet < gateHops
}
