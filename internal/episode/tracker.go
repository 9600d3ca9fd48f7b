package episode

// HopsPerSecond is the number of windows a second that scores come in.
const HopsPerSecond = 4

const (
	// Said is the score below which a subject is calm.
	Said = 0.5
	// held is what evidence of a running episode, or evidence that did not last yet,
	// counts as at most.
	held = 0.99
	// MostPersistence bounds [Tracker.Persistence], in hops.
	MostPersistence = 8
)

// Subject is what an episode is about: the source as a whole, or one kind of change
// of the path.
type Subject struct {
	Path bool // what replaced the source also moved the path: a source episode speaks for it
	Calm int  // hops below [Said] after which an episode is over
}

// SourceSubject and PathSubject are the subjects of the two classes. A path that
// changed stays changed, and its evidence comes and goes.
var (
	SourceSubject = Subject{Calm: 5 * HopsPerSecond}
	PathSubject   = Subject{Path: true, Calm: 120 * HopsPerSecond}
)

// Tracker tells episodes apart: a disturbance is one alarm, when it has lasted for
// Persistence hops; then its subject is no news until it was calm for a while. It
// belongs to one goroutine.
type Tracker struct {
	// Persistence is for how many hops in a row a score must be at its limit, from 1
	// to [MostPersistence]; 0 is 1.
	Persistence int

	subjects []Subject
	state    []subjectState
}

type subjectState struct {
	open       bool
	calm, last int // hops below Said; hops at the limit
	held       bool
}

// Add names a subject and gives its index for [Tracker.Step].
func (t *Tracker) Add(s Subject) int {
	t.subjects, t.state = append(t.subjects, s), append(t.state, subjectState{})
	return len(t.subjects) - 1
}

// Step takes the greatest score of every subject in one hop. It gives the subject
// that raises an alarm, or -1.
func (t *Tracker) Step(high []float64) int {
	source := false
	for i := range t.state {
		s := &t.state[i]
		if s.open {
			if s.calm++; high[i] >= Said {
				s.calm = 0
			}
			s.open = s.calm < t.subjects[i].Calm
		}
		if s.last++; high[i] < 1 {
			s.last = 0
		}
		source = source || s.open && !t.subjects[i].Path
	}
	best, most := -1, 0.0
	for i := range t.state {
		s, v := &t.state[i], high[i]
		s.held = s.open || source && t.subjects[i].Path || s.last < t.Persistence
		if s.held {
			v = min(v, held)
		}
		if best < 0 || v > most || v == most && !t.subjects[i].Path && t.subjects[best].Path {
			best, most = i, v
		}
	}
	if best < 0 || most < 1 {
		return -1
	}
	t.state[best].open, t.state[best].calm = true, 0
	return best
}

// Idle reports whether a hop in which every score is below [Said] would change nothing.
func (t *Tracker) Idle() bool {
	for i := range t.state {
		if t.state[i].open || t.state[i].last > 0 {
			return false
		}
	}
	return true
}

// Held reports whether evidence of a subject at its limit is no news in the hop of
// the last Step: its episode runs, or it did not last yet.
func (t *Tracker) Held(subject int) bool { return t.state[subject].held }

// Open reports whether an episode of the subject runs.
func (t *Tracker) Open(subject int) bool { return t.state[subject].open }
