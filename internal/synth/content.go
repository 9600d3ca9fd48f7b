package synth

import (
	"fmt"
	"math"
	"strings"
)

// Split says which contents and settings may be drawn, so that rules made on one half
// are measured on the other. The halves share no film, key-picture distance (but of VP8, VP9)
// or picture size; they share some presets, frame rates and kinds of drawn scene, and
// all models of networks and troubles.
type Split string

// The splits.
const (
	Dev     Split = "dev"      // to make rules on
	HeldOut Split = "held-out" // to measure on
	Both    Split = "both"
)

func choose[T any](s Split, dev, heldOut []T) []T {
	switch s {
	case Dev:
		return dev
	case HeldOut:
		return heldOut
	}
	return append(append([]T{}, dev...), heldOut...)
}

// Content is what the camera sees: a filter graph that ends in [v], and when it
// changes.
type Content struct {
	Name   string
	Inputs []string // files, as [0:v], [1:v] and so on
	Graph  string
	Events []Event
}

// frame is the picture's format.
type frame struct {
	w, h     int
	num, den int // frames a second
}

func (f frame) rate() float64 { return float64(f.num) / float64(f.den) }

// A scene is one filter chain of the given length; s sizes it.
type scene func(d dice, f frame, seconds float64) string

func size(f frame) string { return fmt.Sprintf("s=%dx%d:r=%d/%d", f.w, f.h, f.num, f.den) }

func small(f frame, by int) string {
	return fmt.Sprintf("s=%dx%d:r=%d/%d", f.w/by&^1, f.h/by&^1, f.num, f.den)
}

// gradients names every colour: those that are not named ffmpeg draws anew each time.
func gradients(f frame, n, seed int) string {
	d := newDice(uint64(seed), "gradients")
	s := fmt.Sprintf("gradients=%s:n=%d:seed=%d", size(f), n, seed)
	for i := range 8 {
		s += fmt.Sprintf(":c%d=#%06x", i, d.IntN(1<<24))
	}
	return s
}

var devScenes = []scene{
	func(d dice, f frame, _ float64) string { return "testsrc2=" + size(f) },
	func(d dice, f frame, s float64) string {
		return fmt.Sprintf("mandelbrot=%s:start_scale=%.3f:end_scale=%.6f:end_pts=%d:start_x=%.6f:maxiter=300",
			small(f, 2), d.between(0.5, 3), d.logBetween(0.0005, 0.1), int(s*f.rate()), d.between(-0.76, -0.72))
	},
	func(d dice, f frame, _ float64) string {
		return fmt.Sprintf("life=%s:mold=%d:ratio=%.2f:seed=%d:life_color=#%06x:death_color=#%06x",
			small(f, d.whole(2, 4)), d.whole(3, 30), d.between(0.1, 0.35), d.whole(1, 1e6), d.IntN(1<<24), d.IntN(1<<24))
	},
	func(d dice, f frame, _ float64) string {
		return fmt.Sprintf("cellauto=%s:rule=%d:ratio=%.2f:seed=%d", small(f, d.whole(1, 3)), pick(d, 18, 30, 90, 110, 150), d.between(0.1, 0.5), d.whole(1, 1e6))
	},
	func(d dice, f frame, _ float64) string {
		return fmt.Sprintf("%s:speed=%.4f", gradients(f, d.whole(2, 6), d.whole(1, 1e6)), d.logBetween(0.005, 0.1))
	},
	func(d dice, f frame, _ float64) string { // blobs that wander
		return fmt.Sprintf("%s:speed=0.002[bg%%[1]d];color=c=#%06x:s=%dx%d:r=%d/%d[ba%%[1]d];[bg%%[1]d][ba%%[1]d]overlay=x='(W-w)*(0.5+0.5*sin(t*%.3f))':y='(H-h)*(0.5+0.5*sin(t*%.3f))'",
			gradients(f, 4, d.whole(1, 1e6)), d.IntN(1<<24), f.w/d.whole(4, 9)&^1, f.h/d.whole(3, 7)&^1, f.num, f.den, d.between(0.1, 2), d.between(0.1, 2))
	},
}

var heldOutScenes = []scene{
	func(d dice, f frame, _ float64) string {
		return fmt.Sprintf("sierpinski=%s:type=%s:seed=%d:jump=%d", small(f, 2), pick(d, "carpet", "triangle"), d.whole(1, 1e6), d.whole(20, 150))
	},
	func(d dice, f frame, _ float64) string {
		return fmt.Sprintf("smptehdbars=%s,scroll=h=%.4f:v=%.4f", size(f), d.between(-0.01, 0.01), d.between(-0.005, 0.005))
	},
	func(d dice, f frame, _ float64) string { // interference of waves
		return fmt.Sprintf("color=c=gray:%s,geq=lum='128+%d*sin(X/%d+T*%.2f)+%d*sin(Y/%d-T*%.2f)':cb='128+60*sin(X/%d-T)':cr=128",
			small(f, 4), d.whole(20, 70), d.whole(3, 15), d.between(0.1, 4), d.whole(10, 50), d.whole(3, 15), d.between(0.1, 4), d.whole(8, 30))
	},
	func(d dice, f frame, _ float64) string { // clouds
		return fmt.Sprintf("color=c=gray:s=%dx%d:r=%d/%d,noise=alls=90:allf=t:all_seed=%d,tmix=frames=%d,scale=%d:%d:flags=bicubic",
			f.w/d.whole(10, 24)&^1, f.h/d.whole(10, 24)&^1, f.num, f.den, d.whole(1, 1e6), d.whole(4, 14), f.w, f.h)
	},
	func(d dice, f frame, _ float64) string { // a scene that a camera pans and zooms over
		return fmt.Sprintf("testsrc=s=%dx%d:r=%d/%d,hue=h='t*%.1f':s=%.2f,zoompan=z='1.3+0.3*sin(on/%d)':x='(iw-iw/zoom)*(0.5+0.5*sin(on/%d))':y='(ih-ih/zoom)*(0.5+0.5*cos(on/%d))':d=1:s=%dx%d:fps=%d/%d",
			f.w*3/2, f.h*3/2, f.num, f.den, d.between(0, 20), d.between(0.2, 1.4), d.whole(40, 400), d.whole(60, 600), d.whole(60, 600), f.w, f.h, f.num, f.den)
	},
	func(d dice, f frame, _ float64) string { // an empty place, now and then somebody walks through
		return fmt.Sprintf("mandelbrot=%s:start_scale=%.3f:end_scale=%.3f:end_pts=1e9:maxiter=100,hue=s=%.2f[bg%%[1]d];color=c=#%06x:s=%dx%d:r=%d/%d[ba%%[1]d];[bg%%[1]d][ba%%[1]d]overlay=x='mod(t*%d\\,%d)-w':y='H-h-%d+4*sin(t*7)'",
			small(f, 2), 1.5, 1.4999, d.between(0, 1), d.IntN(1<<24), f.w/d.whole(8, 16)&^1, f.h/d.whole(2, 4)&^1, f.num, f.den, d.whole(8, 60), f.w*d.whole(2, 6), d.whole(2, 12))
	},
	func(d dice, f frame, _ float64) string {
		return fmt.Sprintf("testsrc2=%s,rotate=a='t*%.3f',vignette,hue=h=%d", size(f), d.between(0.02, 0.6), d.IntN(360))
	},
}

// clipScene shows a part of an input file.
func clipScene(input int, from float64) scene {
	return func(_ dice, _ frame, seconds float64) string {
		return fmt.Sprintf("[%d:v]trim=start=%.2f:duration=%.2f", input, from, seconds)
	}
}

// drawContent composes a film of the given length: mostly one scene that others
// interrupt, under the noise of a sensor, sometimes with a night.
func drawContent(d dice, split Split, f frame, seconds float64, inputs []string, stillAt float64) Content {
	c := Content{}
	pool := choose(split, devScenes, heldOutScenes)
	if split == HeldOut { // what everybody would try first is no secret
		pool = append(pool[:len(pool):len(pool)], devScenes[0], devScenes[4])
	}
	var names []string
	var graph strings.Builder
	chains := 0
	add := func(s scene, name string, length float64, extra string) {
		chain := s(d, f, length)
		if strings.Contains(chain, "%[1]d") {
			chain = fmt.Sprintf(chain, chains)
		}
		fmt.Fprintf(&graph, "%s,scale=%d:%d,setsar=1,fps=%d/%d,format=yuv420p,trim=duration=%.3f,setpts=PTS-STARTPTS%s[s%d];",
			chain, f.w, f.h, f.num, f.den, length, extra, chains)
		names = append(names, name)
		chains++
	}
	// Length of scenes: a quiet camera, a programme, or restless cutting.
	pace := pick(d, 1000.0, 120, 120, 45, 15)
	home := d.IntN(len(pool))
	for at := 0.0; at < seconds; {
		length := math.Round(d.spread(pace, 0.5)*10)/10 + 2
		if at == 0 && pace > 40 {
			length = max(length, d.between(40, 200))
		}
		if seconds-at < length+5 {
			length = seconds - at + 1
		}
		n := home
		if at > 0 {
			n = d.IntN(len(pool))
		}
		extra := ""
		if at > 0 && d.chance(0.3) {
			extra = fmt.Sprintf(",fade=t=in:st=0:d=%.1f", d.between(0.2, 2))
		}
		switch {
		case len(inputs) > 0 && d.chance(0.7):
			k := d.IntN(len(inputs))
			c.Inputs = append(c.Inputs, inputs[k])
			add(clipScene(len(c.Inputs)-1, d.between(0, 60)), fmt.Sprintf("file%d", k), length, extra)
		default:
			add(pool[n], fmt.Sprintf("%s%d", split, n), length, extra)
		}
		if at > 0 {
			c.Events = append(c.Events, Event{Start: at, End: min(at+length, at+20, seconds), Kind: "content_change", Detail: names[len(names)-1]})
		}
		at += length
	}
	for i := range chains {
		fmt.Fprintf(&graph, "[s%d]", i)
	}
	fmt.Fprintf(&graph, "concat=n=%d:v=1:a=0", chains)
	if stillAt > 0 { // the picture stands
		fmt.Fprintf(&graph, ",trim=end_frame=%d,tpad=stop=-1:stop_mode=clone", int(stillAt*f.rate()))
	} else if d.chance(0.85) {
		fmt.Fprintf(&graph, ",noise=alls=%d:allf=t+u:all_seed=%d", d.whole(1, 12), d.whole(1, 1e6))
	}
	moving := stillAt == 0
	if moving && d.chance(0.25) { // clouds before the sun
		fmt.Fprintf(&graph, ",eq=brightness='%.2f*sin(t/%.1f)':eval=frame", d.between(0.02, 0.12), d.between(3, 40))
	}
	if moving && seconds > 180 && d.chance(0.25) {
		from := d.between(100, seconds-60)
		to := from + d.between(20, 120)
		fmt.Fprintf(&graph, ",eq=brightness=-%.2f:contrast=0.7:saturation=0.4:enable='between(t,%.2f,%.2f)',noise=alls=%d:allf=t+u:all_seed=%d:enable='between(t,%.2f,%.2f)'",
			d.between(0.15, 0.4), from, to, d.whole(6, 20), d.whole(1, 1e6), from, to)
		c.Events = append(c.Events, Event{Start: from, End: min(to, seconds), Kind: "night_day", Detail: "brightness drops, sensor noise rises"})
	}
	graph.WriteString(",format=yuv420p[v]")
	c.Graph = graph.String()
	c.Name = strings.Join(names[:min(len(names), 4)], "+")
	return c
}
