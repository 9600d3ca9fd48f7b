package processing

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// Behaviour is how streams are learned, judged and answered.
type Behaviour struct {
	Learn       time.Duration // of normal windows until a profile is mature
	Provisional time.Duration // of them until it is used, with wide margins
	Probation   time.Duration // wide margins after a new session or a restart
	Sensitivity float64       // in (0, 1]; see [detect.Settings]
	Weights     map[string]float64
	Responses   map[bus.Class]bus.Response
	PathAfter   time.Duration // how long a disturbed path is before it is an alert
	AskAfter    time.Duration // how long evidence stays before an operator is asked
	// HoldUnresolved has a stream held while its source stays changed and an operator
	// is asked.
	HoldUnresolved bool
	// Announced is how often a device may announce that it began its encoder anew; the
	// zero Budget ignores what devices announce.
	Announced gkrp.Budget
	Tuning    Tuning // how thresholds tune themselves
}

// DefaultBehaviour gives the values that a Config starts from.
func DefaultBehaviour() Behaviour {
	return Behaviour{
		Learn:       90 * time.Second,
		Provisional: 20 * time.Second,
		Probation:   30 * time.Second,
		Sensitivity: 0.5,
		Responses:   DefaultResponses(),
		PathAfter:   15 * time.Second,
		AskAfter:    30 * time.Second,
		Announced:   Announcements(6),
		Tuning:      DefaultTuning(),
	}
}

// DefaultResponses is the response table where nobody says anything else.
func DefaultResponses() map[bus.Class]bus.Response {
	return map[bus.Class]bus.Response{
		bus.ClassProof:    bus.RespondRotate,
		bus.ClassSource:   bus.RespondRotate,
		bus.ClassIdentity: bus.RespondHold,
		bus.ClassPath:     bus.RespondAlert,
		bus.ClassNoise:    bus.RespondAlert,
		bus.ClassProfile:  bus.RespondAlert,
	}
}

func hops(d time.Duration) int { return int(d / feature.Hop) }

const (
	settleHops = 8   // windows of a session's start, which are like no others
	calmHops   = 20  // windows below calmScore that end an episode
	calmScore  = 0.5 // of the limit
	normal     = 0.75
	// settleFactor is by how much the rate of the later half of a baseline may
	// differ from the earlier one's; a baseline that is not settled is begun again,
	// but not more often than maxRestarts.
	settleFactor = 2
	maxRestarts  = 2
	// proofQuiet and identityQuiet end what nothing measures the end of.
	proofQuiet = 10 * time.Second
	// proofShows is for how long after a rotation for proof the source's evidence is
	// taken for the thief's: what detectors look back.
	proofShows    = 10 * time.Second
	identityQuiet = 90 * time.Second
	noiseQuiet    = 10 * time.Second
	noiseEvery    = time.Minute // least time between two alerts about outsiders
	outageHops    = 40          // silent windows that are an outage
	pausedHops    = 40          // windows with a pause that are a rhythm
	// tamperedProbation is how long a profile that replaces a refused one is used
	// with wide margins only, unless an operator approves it.
	tamperedProbation = 10 * time.Minute
)

// quiets are the classes that nothing measures the end of, and how long nothing is seen
// of one when it is over.
var quiets = [...]struct {
	class bus.Class
	long  time.Duration
}{{bus.ClassProof, proofQuiet}, {bus.ClassIdentity, identityQuiet}, {bus.ClassNoise, noiseQuiet}}

// behaviour is how one stream behaves and what follows from it. It owns no clock,
// no lock and no goroutine: windows, proof and news of rotations go in with the
// time, and what is to be done comes out of [behaviour.take].
type behaviour struct {
	cfg    *Behaviour
	alerts alertBook

	stage   bus.Stage
	session gk.SessionID // of the windows; zero before the first
	epoch   gk.Epoch
	form    feature.Form
	at      time.Time // of the newest window

	profile  profileRecord // as it is stored
	judge    *detect.Engine
	early    *detect.Engine // learns the provisional profile
	learner  *detect.Engine // learns the mature one
	back     *detect.Engine // while a further regime is learned, judges by those before
	backFor  int            // windows in a row that were normal to it
	find     finder
	saved    time.Time // when limits that moved were last stored
	settling int
	learned  int       // windows
	paused   int       // of the baseline, windows with a pause of more than a hop
	rates    []float64 // bytes of each
	restarts int
	refused  uint64 // windows not learned from

	probation int // windows
	excused   int // windows for which the device's word explains a restart of the source
	margin    margin
	planned   time.Time // by an operator; zero: nothing is
	announced announced // by the device
	renewals  renewals
	// pendingKept is when what is left of these was last stored.
	pendingKept time.Time
	verdict     detect.Verdict
	high        map[bus.Class]float64 // of the newest window
	calm        map[bus.Class]int     // windows in a row
	hot         time.Time             // when source evidence was last at its limit
	path        pathEpisode
	silent      int // windows without a packet, in a row
	windows     uint64

	dropped map[string]uint64 // by the transport, at the last status
	carried uint64            // packets delivered then
	noisy   time.Time         // when the last alert about outsiders was opened

	ingress ingressLog // the device's word for its source
	tuned   tuned

	out reactions
}

// reactions are what a behaviour wants done.
type reactions struct {
	rotate      bool // order a new key, [gk.ReasonSource]
	saveProfile bool
	saveAlerts  bool
	events      []gk.Event
	scores      bool // tell them
}

func newBehaviour(cfg *Behaviour, stream gk.StreamID) *behaviour {
	b := &behaviour{cfg: cfg, alerts: newAlertBook(stream), stage: bus.StageLoading, calm: map[bus.Class]int{}, high: map[bus.Class]float64{}}
	b.announced.budget, b.renewals = cfg.Announced, newRenewals()
	b.tuned.params = tune.DefaultParams()
	b.tuned.params.Sensitivity = cfg.Sensitivity
	b.tuned.films.book = cfg.Tuning.reelBook()
	return b
}

// take gives what is to be done, once. Alerts wait until those that were stored are here:
// they have no number before, and must not be written over them.
func (b *behaviour) take() reactions {
	out := b.out
	b.out = reactions{}
	if b.stage != bus.StageLoading {
		out.events = append(out.events, b.alerts.told...)
		out.saveAlerts = b.alerts.dirty
		b.alerts.told, b.alerts.dirty = nil, false
	}
	return out
}

func (b *behaviour) tell(now time.Time, kind gk.EventKind, detail map[string]string) {
	b.out.events = append(b.out.events, gk.Event{Kind: kind, At: now, Stream: b.alerts.stream, Session: b.session, Epoch: b.epoch, Detail: detail})
}

// begin takes a session up: a new one, or one that runs on after a restart of the
// service. It starts under the stored profile, in probation, and never relearns by
// itself.
func (b *behaviour) begin(now time.Time, session gk.SessionID, form feature.Form) {
	for _, c := range []bus.Class{bus.ClassSource, bus.ClassPath, bus.ClassProof, bus.ClassNoise} {
		if a := b.alerts.get(c); a != nil && a.Session != session {
			b.alerts.finish(now, a, outcomeAtEnd(a))
		}
	}
	b.session, b.form = session, form
	b.breakScores()
	clear(b.calm)
	b.path, b.silent, b.dropped, b.verdict = pathEpisode{}, 0, nil, detect.Verdict{}
	b.resume(now)
	b.declare()
}

// window takes the next 250 ms of a session.
func (b *behaviour) window(now time.Time, session gk.SessionID, epoch gk.Epoch, form feature.Form, w *feature.Window) {
	if b.stage == bus.StageLoading {
		return
	}
	if session != b.session {
		b.begin(now, session, form)
	}
	b.epoch, b.at = epoch, now
	b.windows++
	b.outage(now, w)
	switch {
	case b.settling > 0:
		if w.Packets > 0 {
			b.settling--
		}
	case b.stage == bus.StageLearning:
		b.learn(now, w)
	default:
		b.score(now, w)
	}
	b.watchReturn(now, w)
	b.ingress.passed(w)
	b.tick(now)
	b.out.scores = b.out.scores || b.windows%4 == 0
}

// tick ends what only time ends.
func (b *behaviour) tick(now time.Time) {
	for _, q := range quiets {
		if b.alerts.quiet(now, q.class, q.long) {
			b.alerts.close(now, q.class, bus.OutcomeCalm)
		}
	}
	b.keepPending(now)
	if !b.planned.IsZero() && !now.Before(b.planned) {
		b.planned = time.Time{}
		if a := b.alerts.get(bus.ClassSource); a != nil && a.Done == bus.DonePlanned {
			// What was announced has come and stays: this is the source now.
			b.alerts.finish(now, a, bus.OutcomeAccepted)
			b.learnMode(now, "a planned change")
		}
	}
}

// ended notes that the stream has no session any more.
func (b *behaviour) ended(now time.Time) {
	for _, c := range []bus.Class{bus.ClassSource, bus.ClassPath, bus.ClassProof, bus.ClassNoise} {
		if a := b.alerts.get(c); a != nil {
			b.alerts.finish(now, a, outcomeAtEnd(a))
		}
	}
	b.path, b.silent, b.verdict = pathEpisode{}, 0, detect.Verdict{}
}
