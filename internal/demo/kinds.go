package demo

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Places where an attacker can stand.
const (
	Aside = "aside" // an address of his own, reading along on the path
	Path  = "path"  // between device and service: his packets have the source's addresses
	Input = "input" // before the device, which seals what he gives it
)

// None is the run without an attacker: keys change by age, over a path of any kind.
const None = "none"

// kind is one kind of attack, and what the product promises about it.
type kind struct {
	name string
	from []string // places; the first is the default
	// With the stolen key from path and aside; before the device, tampers says whether
	// he acts on its input.
	words map[string]string // by place, what he does
	// classes are those of which one alert is due. An attack that is nobody's proof
	// has none.
	classes map[string][]bus.Class // by place
	rotates map[string]bool        // by place: a new key is due
	// mayAlert are classes that may be told of besides.
	mayAlert []bus.Class
	encoder  bool          // needs footage of an encoder that is run for it
	within   time.Duration // in which the alarm is due
	// learn is the shortest baseline that shows the attack; 0: the story's. steady asks
	// for a camera at a constant rate.
	learn  time.Duration
	steady bool
}

const (
	soon = 12 * time.Second
	// A drift takes five blocks of 8 s to show, and one more to have gone on. That a
	// machine's pauses hide some of them leaves time for another try.
	later = 72 * time.Second
	// driftLearn is as long as the baseline must be to show how far the picture itself
	// moves the volume from one block of 8 s to the next.
	driftLearn = 44 * time.Second
)

var (
	proven  = []bus.Class{bus.ClassProof, bus.ClassSource} // whichever is first
	changed = []bus.Class{bus.ClassSource}
)

var kinds = []kind{
	stolenKey("inject", "bursts of packets sealed with the stolen key, at the indices that come next"),
	stolenKey("replay", "what the camera showed a moment ago, sealed anew with the stolen key"),
	either("loop", "the last seconds again and again"),
	either("swap", "another encoder's pictures in place of the camera's; counters and clocks go on"),
	either("freeze", "a picture that stands still"),
	either("flood", "valid packets, several times as many as the camera's"),
	upstream("exfil", "one packet in twenty carries data of the attacker's, on a PID of its own", soon),
	slowly(upstream("drift", "padding that makes the stream an eighth larger every 8 s", later)),
	onPath("mitm", "every packet through a program of his own: later, on its timer's tick, from its socket"),
	onPath("throttle", "the link carries four fifths of what the camera sends; the queue holds 0.8 s"),
	{
		name: "outsider", from: []string{Aside, Path}, within: soon,
		words: map[string]string{
			Aside: "no key: ten forged packets for each of the camera's, then the last minute's ciphertext once more",
			Path:  "no key: ten forged packets for each of the camera's, then the last minute's ciphertext once more",
		},
		classes: map[string][]bus.Class{Aside: {bus.ClassNoise}, Path: {bus.ClassNoise}},
	},
}

func stolenKey(name, does string) kind {
	return kind{
		name: name, from: []string{Aside, Path}, within: soon,
		words:    map[string]string{Aside: does, Path: does},
		classes:  map[string][]bus.Class{Aside: proven, Path: proven},
		rotates:  map[string]bool{Aside: true, Path: true},
		mayAlert: []bus.Class{bus.ClassProof, bus.ClassSource, bus.ClassPath, bus.ClassNoise},
	}
}

func either(name, does string) kind {
	k := stolenKey(name, does+", sealed with the stolen key")
	k.from = []string{Input, Path, Aside}
	k.words[Input] = does
	k.classes[Input] = changed
	k.rotates[Input] = true
	k.encoder = name == "swap" || name == "freeze"
	return k
}

func upstream(name, does string, within time.Duration) kind {
	return kind{
		name: name, from: []string{Input}, within: within, words: map[string]string{Input: does},
		classes: map[string][]bus.Class{Input: changed}, rotates: map[string]bool{Input: true},
		mayAlert: []bus.Class{bus.ClassSource, bus.ClassPath},
	}
}

// slowly is a kind that only a long baseline of an even source shows.
func slowly(k kind) kind {
	k.learn, k.steady = driftLearn, true
	return k
}

func onPath(name, does string) kind {
	return kind{
		name: name, from: []string{Path}, within: soon, words: map[string]string{Path: does},
		mayAlert: []bus.Class{bus.ClassPath},
	}
}

// promise says what kept promises come to.
func (k kind) promise(place string) string {
	switch {
	case k.rotates[place] && place == Input:
		return "the key was changed once, and nothing was lost; whoever stands before the device is not evicted by that: while it lasts, an operator is asked"
	case k.rotates[place]:
		return "the key was changed at once, nothing was lost, and nothing of the thief's was delivered behind the switch"
	case len(k.classes[place]) > 0:
		return "everything forged was dropped; one alert, no new key, nothing lost"
	}
	return "the network was not taken for the source: no new key"
}

// KindNames lists the kinds of attack.
func KindNames() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

func find(name string) (kind, error) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if i < 0 {
		return kind{}, fmt.Errorf("attack: %q is no kind of attack: choose %s, or %s", name, strings.Join(KindNames(), ", "), None)
	}
	return kinds[i], nil
}

// allowed tells whether an alert of a class belongs to the attack.
func (k kind) allowed(place string, c bus.Class) bool {
	return slices.Contains(k.classes[place], c) || slices.Contains(k.mayAlert, c)
}
