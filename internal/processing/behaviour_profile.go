package processing

import (
	"fmt"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// profileRecord is a profile as it is stored: one whole record, encrypted, whose
// versions rise.
type profileRecord struct {
	Version  uint64          `cbor:"1,keyasint"` // rises with every one stored
	Learned  time.Time       `cbor:"2,keyasint"`
	Approved time.Time       `cbor:"3,keyasint,omitzero"`
	Why      string          `cbor:"4,keyasint,omitempty"` // why it was learned anew
	Modes    []detect.Mode   `cbor:"6,keyasint"`           // none before it was mature
	Now      int             `cbor:"7,keyasint"`           // of them, the one that is judged by
	Early    *detect.Profile `cbor:"8,keyasint"`           // the provisional one, while more is learned
	Before   *profileRecord  `cbor:"9,keyasint"`           // what it replaced, without its own
	Tail     detect.Tail     `cbor:"10,keyasint"`          // how high scores climb in quiet time
}

// replaces keeps what was there before, one step back.
func (p *profileRecord) replaces(before profileRecord) {
	before.Before = nil
	p.Before = &before
}

// check refuses a record that would lead an engine astray.
func (p *profileRecord) check() error {
	if len(p.Modes) == 0 && p.Early == nil {
		return fmt.Errorf("%w: it is empty", detect.ErrProfile)
	}
	if p.Early != nil {
		if err := p.Early.Check(); err != nil {
			return err
		}
	}
	if p.Before != nil {
		if len(p.Before.Modes) == 0 || p.Before.Before != nil {
			return fmt.Errorf("%w: what it replaced is not whole", detect.ErrProfile)
		}
		if err := detect.CheckModes(p.Before.Modes); err != nil {
			return err
		}
	}
	if p.Now < 0 || p.Now >= max(1, len(p.Modes)) {
		return fmt.Errorf("%w: it is judged by a mode that it does not have", detect.ErrProfile)
	}
	return detect.CheckModes(p.Modes)
}

// kept is the record with the limits as they are at present.
func (b *behaviour) kept() profileRecord {
	p := b.profile
	switch {
	case b.back != nil:
		p.Modes, p.Now = b.back.Keep()
	case b.stage == bus.StageMature && b.judge != nil:
		p.Modes, p.Now = b.judge.Keep()
	}
	return p
}

// oldest is the time of the oldest that is kept of the stream, zero where that is
// nothing.
func (b *behaviour) oldest() (at time.Time) {
	times := []time.Time{b.profile.Learned}
	if b.profile.Before != nil {
		times = append(times, b.profile.Before.Learned)
	}
	for i := range b.alerts.all {
		times = append(times, b.alerts.all[i].Opened)
	}
	for _, t := range times {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// store has the record written, under the next version.
func (b *behaviour) store() {
	b.profile.Version++
	b.saved = b.at
	b.out.saveProfile = true
}

const (
	// refusedKind and driftKind are the alerts of class profile.
	refusedKind = "refused-profile"
	driftKind   = "drift"
	// saveEvery is how often limits that moved are stored.
	saveEvery = time.Hour
	// returnHops are the windows in a row, normal to the regimes before, that say that
	// the source has returned to them.
	returnHops = 60
	// oddFit is from where on, in robust deviations, a stream is far from its regime,
	// and oddHops for how long normal windows must be for a regime to be learned there.
	oddFit  = 3.0
	oddHops = 2400
)

// adapt learns from a window that was normal, with nothing open, excused or announced.
func (b *behaviour) adapt(now time.Time, w *feature.Window) {
	if !b.judge.Normal() {
		return
	}
	b.judge.Adapt()
	if b.windows%240 == 0 {
		b.drifts(now)
	}
	if b.saved.IsZero() {
		b.saved = now
	}
	if now.Sub(b.saved) >= saveEvery {
		b.profile = b.kept()
		b.store()
	}
	b.seek(w)
}

// drifts asks about a profile whose limits have gone as far as they may.
func (b *behaviour) drifts(now time.Time) {
	var at detect.ModeState
	for _, m := range b.judge.Modes() {
		if m.Drifting != "" {
			at = m
		}
	}
	a := b.alerts.get(bus.ClassProfile)
	switch {
	case at.Drifting == "" && a != nil && a.Kind == driftKind:
		b.alerts.finish(now, a, bus.OutcomeCalm)
	case at.Drifting != "" && (a == nil || a.Kind == driftKind):
		id := string(b.alerts.stream)
		b.raise(now, bus.Alert{Class: bus.ClassProfile, Kind: driftKind, Severity: "warning", Score: 1,
			Evidence: []string{fmt.Sprintf("drift: %s has moved as far from what was learned as it may by itself, and normal windows go on in that direction", at.Drifting)},
			Ask:      "if the source is as it should be: gaitkeeper profile approve " + id + "; if it was changed: gaitkeeper profile relearn " + id + "; if neither, somebody leads it there"})
	}
}

// finder learns a regime that nobody announced: long normal behaviour far from the
// one in force.
type finder struct {
	odd     int
	learner *detect.Engine
	learned int
}

// seek takes a normal window.
func (b *behaviour) seek(w *feature.Window) {
	modes := b.judge.Modes()
	var now detect.ModeState
	for _, m := range modes {
		if m.Now {
			now = m
		}
	}
	// From a regime that was found none is found again: each step would be normal, and
	// many of them would lead anywhere.
	if now.Found || len(modes) == detect.MaxModes || now.Fit < oddFit {
		if b.find.odd = max(0, b.find.odd-2); b.find.odd == 0 || now.Found {
			b.find = finder{}
		}
		return
	}
	b.find.odd = min(b.find.odd+1, oddHops)
	if b.find.learner == nil {
		if b.find.odd < oddHops {
			return
		}
		b.find.learner = b.engine()
	}
	b.find.learner.Observe(w)
	if b.find.learned++; b.find.learned < hops(b.cfg.Learn) {
		return
	}
	found := b.find.learner.Settle()
	detect.Confine(found, b.judge.Profile())
	b.judge.AddMode(detect.Mode{Name: modeName(b.at), Found: true, Anchor: found})
	b.find = finder{}
	b.profile = b.kept()
	b.store()
}

// modeName names a regime by the time of day that it was learned at.
func modeName(now time.Time) string { return "of " + now.UTC().Format("2006-01-02 15:04") }
