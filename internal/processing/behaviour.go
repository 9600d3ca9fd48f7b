package processing

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
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
	proofQuiet    = 10 * time.Second
	identityQuiet = 90 * time.Second
	noiseQuiet    = 10 * time.Second
	noiseEvery    = time.Minute // least time between two alerts about outsiders
	outageHops    = 40          // silent windows that are an outage
	// tamperedProbation is how long a profile that replaces a refused one is used
	// with wide margins only, unless an operator approves it.
	tamperedProbation = 10 * time.Minute
)

// restartExcuses are the weights while the device says that its source was
// restarted: numbers and clocks may break then, but what the source says may not
// change. They hold for as long as detectors look back.
var restartExcuses = map[string]float64{"order": 0, "renumbering": 0, "clock-step": 0.3, "echo": 0.5, "pacing": 0.5, "volume": 0.5}

const excusedHops = 44

// wideMargins are the weights while a profile is young or in probation: what a
// source says acts as ever, statistics must be far off.
var wideMargins = map[string]float64{
	"grammar": 0.8, "parameter-set": 0.8, "clock-step": 0.7, "packet-size": 0.6, "pacing": 0.7,
	"loop": 0.7, "volume": 0.6, "drift": 0.5, "bottleneck": 0.5, "tick": 0.6, "over-cap": 0.6,
}

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

	profile  profileRecord // the stored one; Profile is nil where there is none
	judge    *detect.Engine
	early    *detect.Engine // learns the provisional profile
	learner  *detect.Engine // learns the mature one
	settling int
	learned  int       // windows
	rates    []float64 // bytes of each
	restarts int
	refused  uint64 // windows not learned from

	probation int // windows
	excused   int // windows for which the device's word explains a restart of the source
	margin    margin
	planned   time.Time
	verdict   detect.Verdict
	calm      map[bus.Class]int // windows in a row
	hot       time.Time         // when source evidence was last at its limit
	path      pathEpisode
	silent    int // windows without a packet, in a row
	windows   uint64

	dropped map[string]uint64 // by the transport, at the last status
	carried uint64            // packets delivered then
	noisy   time.Time         // when the last alert about outsiders was opened

	out reactions
}

// pathEpisode is a disturbed path, before and while it is an alert.
type pathEpisode struct {
	since time.Time
	alert bus.Alert
}

// profileRecord is a profile as it is stored.
type profileRecord struct {
	Version  uint64          `cbor:"1,keyasint"` // rises with every one stored
	Learned  time.Time       `cbor:"2,keyasint"`
	Approved time.Time       `cbor:"3,keyasint,omitzero"`
	Why      string          `cbor:"4,keyasint,omitempty"` // why it was learned anew
	Profile  *detect.Profile `cbor:"5,keyasint"`
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
	return &behaviour{cfg: cfg, alerts: newAlertBook(stream), stage: bus.StageLoading, calm: map[bus.Class]int{}}
}

// take gives what is to be done, once.
func (b *behaviour) take() reactions {
	out := b.out
	out.events = append(out.events, b.alerts.told...)
	out.saveAlerts = b.alerts.dirty
	b.out, b.alerts.told, b.alerts.dirty = reactions{}, nil, false
	return out
}

func (b *behaviour) tell(now time.Time, kind gk.EventKind, detail map[string]string) {
	b.out.events = append(b.out.events, gk.Event{Kind: kind, At: now, Stream: b.alerts.stream, Session: b.session, Epoch: b.epoch, Detail: detail})
}

// loaded takes up what was stored. refused says why the stored profile is not
// believed; a stream without one begins to learn.
func (b *behaviour) loaded(now time.Time, p profileRecord, refused string, number uint64, alerts []bus.Alert) {
	if b.stage != bus.StageLoading {
		return
	}
	b.alerts.restore(now, number, alerts)
	b.profile = p
	switch {
	case refused != "":
		b.profile.Profile, b.profile.Why = nil, refused
		b.tell(now, gk.EventProfileRefused, map[string]string{"why": refused})
		b.raise(now, bus.Alert{Class: bus.ClassProfile, Kind: "refused-profile", Evidence: []string{refused}, Score: 1,
			Ask: "look who can write the store; the profile is learned anew, in probation: gaitkeeper profile approve " + string(b.alerts.stream) + " when it is right"})
		b.startLearning(now)
	case p.Profile != nil:
		b.setStage(now, bus.StageMature)
	default:
		b.startLearning(now)
	}
}

func (b *behaviour) setStage(now time.Time, s bus.Stage) {
	b.stage = s
	b.tell(now, gk.EventProfileStage, map[string]string{"stage": string(s), "version": fmt.Sprint(b.profile.Version), "windows": fmt.Sprint(b.learned)})
}

// startLearning forgets what was learned and begins anew.
func (b *behaviour) startLearning(now time.Time) {
	b.profile.Profile, b.judge = nil, nil
	b.restarts, b.refused = 0, 0
	b.fresh()
	b.setStage(now, bus.StageLearning)
}

// fresh begins a baseline.
func (b *behaviour) fresh() {
	b.early, b.learner = b.engine(), b.engine()
	b.settling, b.learned, b.rates = settleHops, 0, b.rates[:0]
}

func (b *behaviour) settings() detect.Settings {
	return detect.Settings{Sensitivity: b.cfg.Sensitivity, Weights: b.cfg.Weights}
}

func (b *behaviour) engine() *detect.Engine { return detect.NewEngine(b.form, b.settings()) }

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
	clear(b.calm)
	b.path, b.silent, b.dropped, b.verdict = pathEpisode{}, 0, nil, detect.Verdict{}
	if b.stage == bus.StageMature {
		b.judge = detect.Resume(b.profile.Profile, b.settings())
		b.probation, b.settling = max(b.probation, hops(b.cfg.Probation)), settleHops
		b.margins()
		return
	}
	if b.stage != bus.StageLearning || b.learned > 0 {
		b.startLearning(now)
		return
	}
	b.fresh()
}

// outcomeAtEnd is what becomes of an open alert whose cause is not watched any more.
func outcomeAtEnd(a *bus.Alert) bus.Outcome {
	if a.Ask != "" {
		return bus.OutcomeUnresolved
	}
	return bus.OutcomeEnded
}

// margin is what the weights of an engine were set for.
type margin struct {
	of            *detect.Engine
	wide, excused bool
}

// margins sets the weights that the stage, probation and the device's word ask for.
func (b *behaviour) margins() {
	want := margin{b.judge, b.stage == bus.StageProvisional || b.probation > 0, b.excused > 0}
	if want == b.margin || b.judge == nil {
		return
	}
	b.margin = want
	w := map[string]float64{}
	maps.Copy(w, b.cfg.Weights)
	scale := func(by map[string]float64) {
		for kind, f := range by {
			if have, ok := w[kind]; ok {
				f *= have
			}
			w[kind] = f
		}
	}
	if want.wide {
		scale(wideMargins)
	}
	if want.excused {
		scale(restartExcuses)
	}
	b.judge.SetWeights(w)
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
	b.tick(now)
	b.out.scores = b.out.scores || b.windows%4 == 0
}

// steady reports whether a window is fit to learn from as far as the path goes.
func steady(w *feature.Window) bool {
	return w.Packets > 0 && w.Jumps == 0 && w.MaxGap < feature.Hop && w.Lost <= w.Packets/10
}

// learn gathers the baseline while nothing can be judged yet.
func (b *behaviour) learn(now time.Time, w *feature.Window) {
	// A path that is never steady is the stream's own.
	if !steady(w) && (w.Packets == 0 || b.refused < uint64(2*hops(b.cfg.Learn))) {
		b.refused++
		return
	}
	b.early.Observe(w)
	b.observe(w)
	mature := hops(b.cfg.Learn)
	if b.learned < min(mature, hops(b.cfg.Provisional)) {
		return
	}
	if !b.settled() && b.restarts < maxRestarts {
		b.restarts++
		b.refused += uint64(b.learned)
		b.fresh()
		b.settling = 0
		return
	}
	if b.learned >= mature {
		b.mature(now)
		return
	}
	b.early.Settle()
	b.judge, b.early = b.early, nil
	b.setStage(now, bus.StageProvisional)
	b.margins()
}

func (b *behaviour) observe(w *feature.Window) {
	b.learner.Observe(w)
	b.learned++
	if len(b.rates) < 1<<12 {
		b.rates = append(b.rates, float64(w.Bytes))
	}
}

// settled compares the rates of the halves of the baseline.
func (b *behaviour) settled() bool {
	mean := func(x []float64) (m float64) {
		for _, v := range x {
			m += v / float64(len(x))
		}
		return max(m, 1)
	}
	half := len(b.rates) / 2
	if half == 0 {
		return false
	}
	r := mean(b.rates[:half]) / mean(b.rates[half:])
	return r < settleFactor && 1/r < settleFactor
}

// mature makes the profile of everything learned the one that is judged by, and
// has it stored.
func (b *behaviour) mature(now time.Time) {
	b.profile.Profile = b.learner.Settle()
	b.judge, b.learner, b.early, b.rates = b.learner, nil, nil, nil
	b.profile.Version++
	b.profile.Learned, b.profile.Approved = now, time.Time{}
	if b.alerts.get(bus.ClassProfile) != nil {
		b.probation = hops(tamperedProbation)
	}
	b.out.saveProfile = true
	b.setStage(now, bus.StageMature)
	b.margins()
}

// score judges a window, and learns from it where it is normal.
func (b *behaviour) score(now time.Time, w *feature.Window) {
	planned := now.Before(b.planned)
	if b.excused > 0 {
		b.excused--
		b.margins()
	}
	b.verdict = b.judge.Observe(w)
	high := map[bus.Class]float64{}
	for _, e := range b.judge.Evidence() {
		if !e.Advisory {
			high[bus.Class(e.Class)] = max(high[bus.Class(e.Class)], e.Score)
		}
	}
	if high[bus.ClassSource] >= 1 {
		b.hot = now
	}
	for _, c := range []bus.Class{bus.ClassSource, bus.ClassPath} {
		if high[c] < calmScore {
			b.calm[c]++
		} else {
			b.calm[c] = 0
		}
	}
	if b.verdict.Alarm {
		b.alarm(now, planned)
	}
	b.follow(now, high, planned)

	ok := steady(w) && !planned && b.excused == 0 && max(high[bus.ClassSource], high[bus.ClassPath]) < normal &&
		b.alerts.get(bus.ClassSource) == nil && b.alerts.get(bus.ClassPath) == nil
	if !ok {
		b.refused++
		return
	}
	if b.probation > 0 {
		if b.probation--; b.probation == 0 {
			b.alerts.close(now, bus.ClassProfile, bus.OutcomeCalm)
			b.tell(now, gk.EventProfileStage, map[string]string{"stage": string(b.stage), "version": fmt.Sprint(b.profile.Version), "probation": "over"})
		}
		b.margins()
	}
	if b.stage == bus.StageProvisional {
		if b.observe(w); b.learned >= hops(b.cfg.Learn) {
			b.mature(now)
		}
	}
}

// alarm answers a verdict that is news.
func (b *behaviour) alarm(now time.Time, planned bool) {
	a := bus.Alert{Class: bus.Class(b.verdict.Class), Kind: b.verdict.Kind, Score: b.verdict.Score, Evidence: b.evidence()}
	if a.Class == bus.ClassPath {
		if b.path.since.IsZero() {
			b.path = pathEpisode{since: now, alert: a}
		} else if len(b.path.alert.Evidence) < maxEvidence {
			b.path.alert.Evidence = append(b.path.alert.Evidence, a.Evidence...)
		}
		return
	}
	if planned {
		a.Response, a.Done, a.Severity = bus.RespondShow, bus.DonePlanned, "notice"
	}
	b.raise(now, a)
}

// evidence is what the verdict rests on, in words, the strongest first.
func (b *behaviour) evidence() []string {
	var all []string
	for _, e := range append([]detect.Evidence{b.verdict.Evidence}, b.verdict.Others...) {
		if e.Text != "" {
			all = append(all, e.Kind+": "+e.Text)
		}
	}
	return all
}

// raise opens an alert by the response table, and orders what it says.
func (b *behaviour) raise(now time.Time, a bus.Alert) {
	if a.Response == "" {
		a.Response = b.response(a.Class)
	}
	if a.Response == bus.RespondShow && a.Done == "" {
		return
	}
	a.Stage = b.stage
	if a.Session.IsZero() {
		a.Session, a.Epoch = b.session, b.epoch
	}
	news := b.alerts.get(a.Class) == nil
	if a.Done == "" {
		a.Done = bus.DoneAlerted
		if a.Response == bus.RespondHold {
			a.Done = bus.DoneHeld
		}
	}
	have := b.alerts.raise(now, a)
	if news && have.Class == bus.ClassSource && have.Response == bus.RespondRotate {
		b.out.rotate = true
	}
}

func (b *behaviour) response(c bus.Class) bus.Response {
	if r, ok := b.cfg.Responses[c]; ok {
		return r
	}
	return bus.RespondAlert
}

// follow takes the episodes on that are open: they end in calm, grow into an alert,
// or become a question.
func (b *behaviour) follow(now time.Time, high map[bus.Class]float64, planned bool) {
	if a := b.alerts.get(bus.ClassSource); a != nil {
		switch {
		case b.calm[bus.ClassSource] >= calmHops:
			outcome := bus.OutcomeCalm
			if a.Done == bus.DonePlanned {
				outcome = bus.OutcomeAccepted
			}
			b.alerts.finish(now, a, outcome)
		case high[bus.ClassSource] >= 1:
			b.alerts.see(now, a, high[bus.ClassSource], b.evidence()...)
		}
		if a.Closed.IsZero() && a.Outcome != bus.OutcomeUnresolved && !planned && now.Sub(a.Opened) >= b.cfg.AskAfter && now.Sub(b.hot) < time.Second {
			b.ask(now, a)
		}
	}
	if b.path.since.IsZero() || b.path.alert.Kind == outageKind {
		return
	}
	if b.calm[bus.ClassPath] >= calmHops {
		b.path = pathEpisode{}
		b.alerts.close(now, bus.ClassPath, bus.OutcomeCalm)
		return
	}
	if b.alerts.get(bus.ClassPath) == nil && now.Sub(b.path.since) >= b.cfg.PathAfter {
		b.raise(now, b.path.alert)
	}
	if a := b.alerts.get(bus.ClassPath); a != nil && high[bus.ClassPath] >= 1 {
		b.alerts.see(now, a, high[bus.ClassPath])
	}
}

// ask turns an alert whose evidence stays into a question: no key answers it.
func (b *behaviour) ask(now time.Time, a *bus.Alert) {
	id := string(b.alerts.stream)
	a.Outcome = bus.OutcomeUnresolved
	a.Ask = "the source stays as it is now. If it was changed on purpose: gaitkeeper profile relearn " + id + ". If not, look at the encoder, and revoke the device if it is not yours any more"
	b.alerts.tell(now, gk.EventAlertChanged, a)
}

// outageKind names the alert about a stream without packets.
const outageKind = "outage"

func (b *behaviour) outage(now time.Time, w *feature.Window) {
	if w.Packets > 0 {
		if b.path.alert.Kind == outageKind {
			b.path = pathEpisode{}
			b.alerts.close(now, bus.ClassPath, bus.OutcomeCalm)
		}
		b.silent = 0
		return
	}
	if b.silent++; b.silent == outageHops && b.alerts.get(bus.ClassPath) == nil {
		b.path = pathEpisode{since: now, alert: bus.Alert{
			Class: bus.ClassPath, Kind: outageKind, Score: 1, Severity: "warning",
			Evidence: []string{fmt.Sprintf("no packet for %v", time.Duration(b.silent)*feature.Hop)},
		}}
		b.raise(now, b.path.alert)
	}
}

// tick ends what only time ends.
func (b *behaviour) tick(now time.Time) {
	for c, long := range map[bus.Class]time.Duration{bus.ClassProof: proofQuiet, bus.ClassIdentity: identityQuiet, bus.ClassNoise: noiseQuiet} {
		if b.alerts.quiet(now, c, long) {
			b.alerts.close(now, c, bus.OutcomeCalm)
		}
	}
	if !b.planned.IsZero() && !now.Before(b.planned) {
		b.planned = time.Time{}
		if a := b.alerts.get(bus.ClassSource); a != nil && a.Done == bus.DonePlanned {
			// What was announced has come and stays: this is the source now.
			b.alerts.finish(now, a, bus.OutcomeAccepted)
			b.profile.Why = "a planned change"
			b.startLearning(now)
		}
	}
}

// proof takes a transport's evidence that somebody else has an epoch's key, while
// current is in use. It says whether the key is to be changed.
func (b *behaviour) proof(now time.Time, p bus.Proof, current gk.Epoch) (rotate bool) {
	b.raise(now, bus.Alert{Class: bus.ClassProof, Session: p.Session, Epoch: p.Epoch, Kind: p.What, Score: 1, Evidence: []string{
		fmt.Sprintf("%s: an authentic packet of epoch %d, index %d, that the device cannot have sent: somebody else has the key", p.What, p.Epoch, p.Index),
	}})
	rotate = b.response(bus.ClassProof) == bus.RespondRotate
	if a := b.alerts.get(bus.ClassProof); a != nil && rotate && a.Done == bus.DoneAlerted && p.Epoch < current {
		// The key was changed before, for whatever reason.
		a.Done, a.Rotated, a.RotatedAt, a.Outcome = bus.DoneRotated, current, now, bus.OutcomeStaleProven
		b.alerts.tell(now, gk.EventAlertChanged, a)
	}
	return rotate
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

// event takes what the protocol's state machine told of the stream.
func (b *behaviour) event(now time.Time, e gk.Event) {
	switch e.Kind {
	case gk.EventRotationDecided, gk.EventRotationDone, gk.EventBudgetSpent:
		b.alerts.rotation(now, e)
		if e.Kind == gk.EventRotationDecided && e.Reason == gk.ReasonDiscontinuity {
			b.excused = excusedHops
			b.margins()
		}
	case gk.EventIdentity:
		b.raise(now, bus.Alert{Class: bus.ClassIdentity, Kind: "second-session", Score: 1, Evidence: []string{
			"the device's identity asks for a second session, " + e.Detail["newcomer"] + ", while the first one sends: it is kept out",
		}, Ask: "if the device was not restarted, its identity was copied: revoke it and enrol it anew"})
	}
}

// outsiders are the causes of drops that need no key.
var outsiders = []string{"bad-length", "auth-failed", "unknown-epoch", "stale-epoch", "stale-unproven", "too-old"}

const (
	noisyPackets    = 20   // a second that outsiders must send to be told of
	noisyDuplicates = 0.25 // share of repeated packets that no network makes
)

// status takes a transport's counts of one session, once a second.
func (b *behaviour) status(now time.Time, u *bus.StreamStatus) {
	if u.Session != b.session {
		return
	}
	before := b.dropped
	b.dropped = u.Dropped
	more := func(cause string) uint64 {
		if n := u.Dropped[cause]; n > before[cause] {
			return n - before[cause]
		}
		return 0
	}
	carried := u.Delivered - min(b.carried, u.Delivered)
	b.carried = u.Delivered
	defer b.tick(now)
	if before == nil {
		return
	}
	if n := more("stale-proven"); n > 0 {
		b.alerts.stale(now, b.session, n)
	}
	var c feature.OutsiderCounters
	c.BadLength, c.Forged, c.UnknownEpoch = more("bad-length"), more("auth-failed")+more("stale-unproven"), more("unknown-epoch")+more("stale-epoch")
	c.Replayed = more("too-old")
	if n := more("duplicate"); float64(n) > noisyDuplicates*float64(carried) {
		c.Replayed += n
	}
	if c.Total() < noisyPackets {
		return
	}
	if b.alerts.get(bus.ClassNoise) == nil && now.Sub(b.noisy) < noiseEvery && !b.noisy.IsZero() {
		return
	}
	if b.alerts.get(bus.ClassNoise) == nil {
		b.noisy = now
	}
	b.raise(now, bus.Alert{Class: bus.ClassNoise, Kind: "outsider", Score: math.Log10(float64(c.Total())) / math.Log10(noisyPackets), Evidence: []string{
		fmt.Sprintf("in one second %d forged packets, %d replayed, %d of unknown or old keys, %d of bad length: dropped, nothing else follows", c.Forged, c.Replayed, c.UnknownEpoch, c.BadLength),
	}})
}

// approve takes an operator's word that the profile is right.
func (b *behaviour) approve(now time.Time) error {
	if b.stage != bus.StageMature {
		return bus.Refuse(bus.CodeConflict, "stream %s: the profile is %s: approve it when it is mature", b.alerts.stream, b.stage)
	}
	b.profile.Approved = now
	b.profile.Version++
	b.probation = 0
	b.alerts.close(now, bus.ClassProfile, bus.OutcomeAccepted)
	b.out.saveProfile = true
	b.margins()
	b.tell(now, gk.EventProfileStage, map[string]string{"stage": string(b.stage), "version": fmt.Sprint(b.profile.Version), "approved": "by the operator"})
	return nil
}

// relearn takes an operator's word that the source changed.
func (b *behaviour) relearn(now time.Time) error {
	if b.stage == bus.StageLoading {
		return bus.Refuse(bus.CodeUnavailable, "stream %s: the profile is being read: ask again in a moment", b.alerts.stream)
	}
	b.alerts.close(now, bus.ClassSource, bus.OutcomeAccepted)
	b.alerts.close(now, bus.ClassProfile, bus.OutcomeAccepted)
	b.profile.Why = "an operator asked for it"
	b.probation = 0
	b.verdict = detect.Verdict{}
	b.startLearning(now)
	return nil
}

// plan takes an operator's word that the source will change; zero takes it back.
func (b *behaviour) plan(now time.Time, long time.Duration) error {
	if long < 0 || long > bus.MaxPlanned {
		return bus.Refuse(bus.CodeBadRequest, "a planned change lasts %v at most", bus.MaxPlanned)
	}
	b.planned = time.Time{}
	if long > 0 {
		b.planned = now.Add(long)
	}
	b.tell(now, gk.EventPlannedChange, map[string]string{"for": long.String()})
	return nil
}

// info describes the profile.
func (b *behaviour) info() bus.ProfileInfo {
	i := bus.ProfileInfo{
		Stream: b.alerts.stream, Stage: b.stage, Version: b.profile.Version, Windows: b.learned, Wanted: hops(b.cfg.Learn),
		Learned: b.profile.Learned, Approved: b.profile.Approved, Why: b.profile.Why, Probation: b.probation,
		Planned: b.planned, Stored: b.profile.Profile != nil, Refused: b.refused,
	}
	p := b.profile.Profile
	if p == nil && b.judge != nil {
		p = b.judge.Profile()
	}
	if p != nil {
		i.Words, i.Form = len(p.Vocabulary.Words), p.Form.String()
	} else if !b.session.IsZero() {
		i.Form = b.form.String()
	}
	if b.profile.Profile != nil {
		i.Windows = b.profile.Profile.Hops
	} else {
		i.Learned, i.Approved = time.Time{}, time.Time{}
	}
	return i
}

// explain tells how the stream is judged.
func (b *behaviour) explain() bus.Explanation {
	e := bus.Explanation{
		Stream: b.alerts.stream, Responses: b.cfg.Responses, Profile: b.info(), Sensitivity: b.cfg.Sensitivity,
		At: b.at, Score: b.verdict.Score, Outsiders: b.dropped,
	}
	if b.judge != nil {
		for _, d := range b.judge.Evidence() {
			e.Detectors = append(e.Detectors, bus.Detector{Kind: d.Kind, Class: bus.Class(d.Class), Score: finite(d.Score), Value: finite(d.Value), Limit: finite(d.Limit), Text: d.Text, Advisory: d.Advisory})
		}
		slices.SortStableFunc(e.Detectors, func(x, y bus.Detector) int { return cmp.Compare(y.Score, x.Score) })
	}
	for _, a := range slices.Backward(b.alerts.all) {
		if a.Closed.IsZero() {
			e.Open = append(e.Open, a)
		} else if e.Last == nil {
			e.Last = &a
		}
	}
	return e
}

// finite keeps numbers fit for JSON.
func finite(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}

// scores are what is told once a second.
func (b *behaviour) scores() bus.StreamScores {
	s := bus.StreamScores{Stream: b.alerts.stream, Stage: b.stage, Score: finite(b.verdict.Score), Open: len(b.alerts.open)}
	if b.judge != nil {
		s.Detectors = map[string]float64{}
		for _, d := range b.judge.Evidence() {
			s.Detectors[d.Kind] = max(s.Detectors[d.Kind], finite(d.Score))
		}
	}
	return s
}
