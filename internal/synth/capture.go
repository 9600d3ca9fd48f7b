package synth

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// take is one capture to be made: which encoding travels how, and what happens.
type take struct {
	name    string
	encode  int // of the plan
	ts      bool
	attacks []string // kinds; none: a harmless capture
	seconds float64
}

// cast are the encodings that a take needs.
type cast struct {
	main, other, sibling, still *encoding
	lower                       *encoding // the main one at a lower rate
}

// make carries a take out.
func (t *take) make(p *Plan, c cast) (*Label, []packet, error) {
	d := newDice(p.Seed, "take/"+t.name)
	length := time.Duration(t.seconds * 1e9)
	s := drawSending(d, p.Split, c.main.recipe, t.ts)
	l := &Label{
		Capture: t.name, Split: p.Split, Seed: p.Seed, Footage: c.main.recipe.Content.Name, Codec: c.main.recipe.Codec,
		Encoder: c.main.recipe.String(), PayloadForm: "native", Baseline: p.Baseline, Port: mediaPort, SnapLength: snapShort,
		PayloadType: int(s.Payload), Software: p.software,
	}
	if t.ts {
		l.PayloadForm = "ts"
	}
	if d.chance(p.Whole) {
		l.SnapLength = snapWhole
	}
	if len(c.main.recipe.Content.Inputs) > 0 && p.inputLength > 0 {
		l.RepeatsFrom = p.inputLength
	}
	for _, e := range c.main.recipe.Content.Events {
		if e.End > p.Baseline && e.Start < t.seconds {
			l.Events = append(l.Events, e)
		}
	}
	harmless := len(t.attacks) == 0
	if harmless && d.chance(0.3) {
		for range d.whole(1, 2) {
			from := d.between(p.Baseline+8, t.seconds-12)
			e := Event{Start: from, End: from + d.logBetween(0.15, 1), Kind: "encoder_hiccup"}
			e.Detail = fmt.Sprintf("encoder stopped for %.0f ms", 1e3*(e.End-e.Start))
			s.Hiccups = append(s.Hiccups, span{time.Duration(e.Start * 1e9), time.Duration(e.End * 1e9)})
			l.Events = append(l.Events, e)
		}
	}
	l.Sender = s.String()
	ps := c.main.send(newDice(p.Seed, "send/"+t.name), s, length)
	if len(ps) < 100 {
		return nil, nil, fmt.Errorf("%s: the encoder made only %d packets", t.name, len(ps))
	}
	bits := 0.0
	for i := range ps {
		bits += 8 * float64(ps[i].length()+wireOverhead)
	}
	mean := bits / t.seconds
	if harmless && d.chance(0.08) {
		var e Event
		if ps, e = restart(d, ps, t.ts, d.between(p.Baseline+8, t.seconds-20)); e.Kind != "" {
			l.Events = append(l.Events, e)
		}
	}
	if c.lower != nil {
		low := c.lower.send(newDice(p.Seed, "lower/"+t.name), s, length)
		var e Event
		if ps, e = step(ps, low, t.ts, d.between(p.Baseline+8, t.seconds-20)); e.Kind != "" {
			l.Events = append(l.Events, e)
		}
	}
	n := drawNetwork(d, pick(d, Networks...), mean)
	l.Network = n.String()

	a := assault{
		d: newDice(p.Seed, "attack/"+t.name), ts: t.ts, codec: c.main.recipe.Codec, mean: mean, network: n,
		other: func() []packet {
			d := newDice(p.Seed, "other/"+t.name)
			return c.other.send(d, drawSending(d, p.Split, c.other.recipe, t.ts), length)
		},
		sibling: func() []packet { return c.sibling.send(newDice(p.Seed, "sibling/"+t.name), s, length) },
		still:   func() []packet { return c.still.send(newDice(p.Seed, "still/"+t.name), s, length) },
	}
	var behind []func([]packet) []packet
	for i, w := range t.schedule(p.Baseline, a.d) {
		kind := t.attacks[i]
		what := attacks[kind]
		l.Events = append(l.Events, Event{Start: w.from.Seconds(), End: w.to.Seconds(), Kind: kind, Malicious: true})
		e := len(l.Events) - 1
		one := a
		one.d = newDice(p.Seed, fmt.Sprintf("attack/%s/%d", t.name, i))
		one.from, one.to = w.from, w.to
		carry := func(in []packet) []packet {
			one.in = in
			out, detail := what.apply(&one)
			l.Events[e].Detail, l.Events[e].Start = detail, one.from.Seconds()
			return out
		}
		if what.behind {
			behind = append(behind, carry)
			l.Position = add(l.Position, "post")
			continue
		}
		l.Position = add(l.Position, "pre")
		ps = carry(ps)
	}

	ssrc, base, port := d.Uint32(), d.Uint32(), uint16(d.whole(20000, 60000))
	number(ps, uint16(d.Uint32()))
	for i := range ps {
		ps[i].ssrc, ps[i].port = ssrc, port
		ps[i].ts += base
	}
	l.SSRC = fmt.Sprintf("%08x", ssrc)
	var troubles []trouble
	if harmless {
		for range d.IntN(5) {
			kinds := slices.DeleteFunc(slices.Clone(troubleKinds[n.Class]), func(k string) bool { return len(p.Kinds) > 0 && !slices.Contains(p.Kinds, k) })
			if len(kinds) == 0 {
				break
			}
			tr, e := drawTrouble(d, n, pick(d, kinds...), d.between(p.Baseline+5, t.seconds-15), t.seconds, mean)
			troubles, l.Events = append(troubles, tr), append(l.Events, e)
		}
	}
	ps = n.deliver(newDice(p.Seed, "path/"+t.name), ps, troubles)
	for _, carry := range behind {
		ps = carry(ps)
	}
	slices.SortFunc(l.Events, func(a, b Event) int { return int(math.Copysign(1, a.Start-b.Start)) })
	return l, ps, nil
}

func add(list, word string) string {
	if strings.Contains(list, word) {
		return list
	}
	return strings.TrimPrefix(list+"+"+word, "+")
}

// schedule says when the attacks happen: one after another, with calm between them.
func (t *take) schedule(baseline float64, d dice) []span {
	var out []span
	at := baseline + d.between(12, 20)
	for _, kind := range t.attacks {
		length := d.between(18, 24)
		if kind == "slow_drift" {
			length = 62
		}
		out = append(out, span{time.Duration(at * 1e9), time.Duration((at + length) * 1e9)})
		at += length + d.between(26, 36)
	}
	return out
}

// attackSeconds is how long a capture of these attacks can become.
func attackSeconds(baseline float64, kinds []string) float64 {
	s := baseline + 20
	for _, k := range kinds {
		s += 24 + 36
		if k == "slow_drift" {
			s += 38
		}
	}
	return s
}

// step goes over to the same film at another rate, at a key picture.
func step(ps, low []packet, ts bool, from float64) ([]packet, Event) {
	j := keyAt(low, time.Duration(from*1e9))
	if j < 0 {
		return ps, Event{}
	}
	i := at(ps, time.Duration(low[j].at))
	out := append(slices.Clone(ps[:i]), low[j:]...)
	start := float64(low[j].at) / 1e9
	return continued(out, ts, i), Event{Start: start, End: start + 5, Kind: "abr_step", Planned: true, Detail: "the operator lowers the rate"}
}

// restart lets the encoder fall silent, begin anew with a key picture, and count its
// time anew. The device numbers on and says so in its report.
func restart(d dice, ps []packet, ts bool, from float64) ([]packet, Event) {
	i := at(ps, time.Duration(from*1e9))
	j := keyAt(ps, time.Duration((from+d.logBetween(0.3, 4))*1e9))
	if j < 0 || i == 0 {
		return ps, Event{}
	}
	shift, clocks := d.Uint32(), d.Int64N(1<<32)
	out := slices.Clone(ps[:i])
	for k, p := range ps[j:] {
		p.ts += shift
		if ts {
			p.payload = restamp(p.payload, clocks)
			p.marker = p.marker || k == 0
		}
		out = append(out, p)
	}
	end := float64(ps[j].at) / 1e9
	return out, Event{Start: from, End: end + 1, Kind: "encoder_restart", Planned: true, Detail: fmt.Sprintf("silent for %.1f s, then new clocks", end-from)}
}
