package detect

import "fmt"

// pacing accuses a sender that gave every packet a time of its own and now gives one
// time to many: a paced gateway was taken out, or its source was replaced.
type pacing struct{ p *Profile }

const (
	pacedStep  = 1200 // ticks: shorter mean steps than any frame rate has
	pacedShare = 0.1  // of packets that share a time, in the baseline at most
	pacedLimit = 0.4
)

func (pacing) Name() string { return "pacing" }

func (d pacing) Score(v *View) Evidence {
	e := Evidence{Kind: "pacing", Class: Source, Limit: pacedLimit}
	if d.p.MeanStep == 0 || d.p.MeanStep > pacedStep || d.p.SameTimeMax > pacedShare || v.S4.Packets < 40 {
		return e
	}
	e.Value = float64(v.S4.SameTimes) / float64(v.S4.Packets)
	e.Score = e.Value / e.Limit
	if e.Score >= v.Said {
		e.Text = fmt.Sprintf("%.0f %% of the packets in 4 s have the RTP timestamp of the one before; this source gave each its own (at most %.0f %% shared one; limit %.0f %%)",
			100*e.Value, 100*d.p.SameTimeMax, 100*e.Limit)
	}
	return e
}
