package bus

import (
	"maps"
	"sync"
)

// maxAtOnce is how many requests a responder works on at the same time. A thousand
// streams may all need a key at once, and each request holds a goroutine and its bytes.
const maxAtOnce = 1024

// crowd is what one responder works on. A is how an asker is answered.
type crowd[A any] struct {
	subject string

	mu     sync.Mutex
	inside int
	asked  map[string]A // by asking: its newest request, which gets the answer
}

func newCrowd[A any](subject string) *crowd[A] {
	return &crowd[A]{subject: subject, asked: map[string]A{}}
}

// The outcomes of enter.
type entry int

const (
	entered entry = iota
	joined        // the same is worked on already: its answer goes to this asker
	refused       // too many are inside
)

// enter lets a request in, or has it wait for the answer to its earlier asking: same
// tells whether that one is really the same.
func (c *crowd[A]) enter(asking string, a A, same func(A) bool) entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, ok := c.asked[asking]; ok && same(before) {
		c.asked[asking] = a
		return joined
	}
	if c.inside >= maxAtOnce {
		turnedAway.add(c.subject)
		return refused
	}
	c.inside++
	if _, taken := c.asked[asking]; asking != "" && !taken {
		c.asked[asking] = a
	}
	return entered
}

// leave gives who is to be answered, of what a entered with.
func (c *crowd[A]) leave(asking string, a A, same func(A) bool) A {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside--
	if newest, ok := c.asked[asking]; ok && same(newest) {
		delete(c.asked, asking)
		return newest
	}
	return a
}

// tally counts by subject.
type tally struct {
	mu sync.Mutex
	by map[string]uint64
}

func (t *tally) add(subject string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.by[subject]++
}

// turnedAway counts, for the whole process, as metrics do.
var turnedAway = tally{by: map[string]uint64{}}

// TurnedAway gives how many requests the responders of this process refused since it
// began, because they were at work on as many as they take, by subject. The subjects are
// those that were served, and so few.
func TurnedAway() map[string]uint64 {
	turnedAway.mu.Lock()
	defer turnedAway.mu.Unlock()
	return maps.Clone(turnedAway.by)
}

// busyAnswer is the answer of a responder that refuses for that.
func busyAnswer(subject string) []byte { return refusalAnswer(busy(subject)) }

// refusalAnswer is an answer that only refuses.
func refusalAnswer(r *Refusal) []byte {
	b, err := encMode.Marshal(answer{Refusal: r})
	if err != nil {
		return nil
	}
	return b
}

func busy(subject string) *Refusal {
	return Refuse(CodeBusy, "%s: %d requests are worked on already: try again", subject, maxAtOnce).(*Refusal)
}
