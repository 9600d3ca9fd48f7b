// Package demo shows the whole system on one machine: all services and a device on
// real sockets, either under keys that change by age over a bad network, or under
// attack. It is the only program that has a media key stolen (internal/attack).
package demo

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/app"
)

// Config is what `gaitkeeper demo` can be told. Its tags are read by kong. Variables
// that set up the server of this machine are not the demonstration's: it must not come
// upon that one's data.
type Config struct {
	Attack  string `group:"attack" placeholder:"KIND" help:"What the attacker does: inject, replay, loop, swap, freeze, mitm, exfil, drift, throttle, flood or outsider. Default: inject; and none where --rotate-every, --duration or a bad media path is asked for."`
	From    string `group:"attack" placeholder:"PLACE" help:"Where the attacker stands: aside (an address of his own), path (between device and service: his packets have the source's addresses), input (before the device). Default: by kind."`
	Footage string `group:"attack" default:"auto" enum:"auto,clip,encoded" placeholder:"WHICH" help:"What the camera shows under attack: the clip that the program carries as it is (0.25 Mb/s), or encoded anew by ffmpeg at up to 4 Mb/s. Default: auto, which encodes where ffmpeg is installed and --attack is given."`

	Plot string `group:"attack" type:"path" placeholder:"FILE.svg" help:"Draw the story: scores, packets, keys, and what happened when."`

	Duration    time.Duration `placeholder:"TIME" help:"How long to send. Default: the whole input once."`
	RotateEvery time.Duration `env:"-" placeholder:"TIME" help:"Age at which the key is changed. Default: 5s without an attacker; with one, the key stays until he is noticed."`
	Input       string        `placeholder:"FILE.ts" help:"MPEG-TS to send at its own pace, or any source that gaitkeeper device takes. Default: a clip of 160 s that the program carries."`
	Listen      string        `env:"-" default:"127.0.0.1:8080" placeholder:"ADDR" help:"Address that serves the decrypted stream."`
	Data        string        `env:"-" type:"path" placeholder:"DIR" help:"Directory to keep the run's data in. Default: a temporary one, removed at the end."`

	Loss    app.Percent   `group:"path" default:"0%" placeholder:"SHARE" help:"Share of packets that the media path drops, for example 2%."`
	Delay   time.Duration `group:"path" placeholder:"TIME" help:"How long the media path delays packets."`
	Jitter  time.Duration `group:"path" placeholder:"TIME" help:"How far the delay of each packet varies to either side."`
	Reorder app.Percent   `group:"path" default:"0%" placeholder:"SHARE" help:"Share of packets that the media path holds back, so that later ones overtake them."`
	Seed    uint64        `group:"path" default:"1" placeholder:"N" help:"Seed of the media path's dice: equal seeds treat the same packets alike."`

	// Tempo is how fast a story is told; what is zero takes its time.
	Tempo Tempo `kong:"-"`
}

// drawn refuses a picture of a run that tells no story.
func (c Config) drawn(name string) error {
	if c.Plot != "" && name == None {
		return errors.New("plot: there is no attacker, and so no story to draw: leave it out, or choose --attack KIND")
	}
	return nil
}

const defaultRotate = 5 * time.Second

// Tempo is how long the acts of a story last.
type Tempo struct {
	Learn  time.Duration // behaviour that is learned
	Clean  time.Duration // from then to the attack
	Linger time.Duration // of the attack, when all is decided
	Calm   time.Duration // at most, for the alerts to close
}

var calmly = Tempo{Learn: 12 * time.Second, Clean: 4 * time.Second, Linger: 4 * time.Second, Calm: 25 * time.Second}

func (t Tempo) withDefaults() Tempo {
	return Tempo{
		cmp.Or(t.Learn, calmly.Learn), cmp.Or(t.Clean, calmly.Clean), cmp.Or(t.Linger, calmly.Linger), cmp.Or(t.Calm, calmly.Calm),
	}
}

// impaired reports whether the media path does anything to packets.
func (c Config) impaired() bool {
	return c.Loss > 0 || c.Delay > 0 || c.Jitter > 0 || c.Reorder > 0
}

// plain lists the settings given that belong to the run without an attacker.
func (c Config) plain() (given []string) {
	for name, is := range map[string]bool{
		"--duration": c.Duration != 0, "--rotate-every": c.RotateEvery != 0,
		"--loss": c.Loss > 0, "--delay": c.Delay > 0, "--jitter": c.Jitter > 0, "--reorder": c.Reorder > 0,
	} {
		if is {
			given = append(given, name)
		}
	}
	slices.Sort(given)
	return given
}

// Attacked tells which attack the settings ask for, and from where; [None] where
// they ask for none.
func (c Config) Attacked() (name, place string, err error) {
	if c.Duration < 0 {
		return "", "", fmt.Errorf("duration: %v is negative", c.Duration)
	}
	given := c.plain()
	name = c.Attack
	switch {
	case name == "" && len(given) > 0:
		name = None
	case name == "":
		name = "inject"
	}
	if name == None {
		if c.From != "" {
			return "", "", errors.New("from: there is no attacker: name one with --attack")
		}
		return None, "", nil
	}
	k, err := find(name)
	if err != nil {
		return "", "", err
	}
	if len(given) > 0 {
		return "", "", fmt.Errorf("attack %s: is told over a clean path, under one key until it is noticed: leave %s out, or choose --attack none", name, strings.Join(given, ", "))
	}
	place = c.From
	if place == "" {
		place = k.from[0]
	}
	if !slices.Contains(k.from, place) {
		return "", "", fmt.Errorf("attack %s: is not done from %q: choose --from %s", name, place, strings.Join(k.from, " or "))
	}
	return name, place, nil
}
