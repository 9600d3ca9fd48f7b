package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/detect"
)

const plotStyle = `<!doctype html><meta charset="utf-8"><title>%s</title>
<style>body{font:14px system-ui,sans-serif;margin:2em;max-width:70em;color:#222}svg{display:block}h1{font-size:1.3em}h2{font-size:1em;margin:1.2em 0 .2em}text{font-size:11px;fill:#555}</style>
<h1>%s</h1>
`

// scoreY maps a score to the height of a plot: linear to the limit, then logarithmic.
func scoreY(score, height float64) float64 {
	y := score / 2
	if score > 1 {
		y = 0.5 + math.Min(math.Log10(score)/4, 0.5)
	}
	return height * (1 - y)
}

// plotTimeline draws the scores of one capture over the time, its events behind.
func plotTimeline(b *bytes.Buffer, name string, duration float64, events []detect.Event, readings []detect.Reading) {
	const width, height = 1000.0, 90.0
	fmt.Fprintf(b, "<h2>%s</h2><svg viewBox=\"0 0 %g %g\" width=\"100%%\" role=\"img\">", html.EscapeString(name), width, height+16)
	drawTimeline(b, width, height, duration, events, readings)
	b.WriteString("</svg>\n")
}

// drawTimeline draws what is inside of a timeline.
func drawTimeline(b *bytes.Buffer, width, height, duration float64, events []detect.Event, readings []detect.Reading) {
	x := func(t float64) float64 { return t / math.Max(duration, 1) * width }
	for _, e := range events {
		colour := "#cfe3cf"
		if e.Malicious {
			colour = "#f3c9c5"
		}
		fmt.Fprintf(b, `<rect x="%.1f" y="0" width="%.1f" height="%g" fill="%s" stroke="#fff" stroke-width=".7"><title>%s, %.1f to %.1f s</title></rect>`,
			x(e.Start), x(max(0, min(e.End, duration)-e.Start)), height, colour, html.EscapeString(e.Kind), e.Start, e.End)
	}
	nameEvents(b, width, x, events)
	fmt.Fprintf(b, `<line x1="0" x2="%g" y1="%g" y2="%g" stroke="#b33" stroke-dasharray="4 3"/><polyline fill="none" stroke="#246" points="`, width, height/2, height/2)
	for _, r := range readings {
		fmt.Fprintf(b, "%.1f,%.1f ", x(r.T), scoreY(r.Score, height))
	}
	b.WriteString(`"/>`)
	for _, r := range readings {
		if r.Score >= 1 {
			colour := "#b33"
			if r.Class == detect.Path {
				colour = "#c80"
			}
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%.2f s, %s, score %.2f: %s</title></circle>`,
				x(r.T), scoreY(r.Score, height), colour, r.T, r.Kind, r.Score, html.EscapeString(r.Text))
		}
	}
	for t := 0.0; t <= duration; t += 60 {
		fmt.Fprintf(b, `<text x="%.1f" y="%g">%g s</text>`, x(t), height+12, t)
	}
}

// nameEvents writes the names of events in two rows, attacks first; one that finds no room
// is left to what shows when it is pointed at.
func nameEvents(b *bytes.Buffer, width float64, x func(float64) float64, events []detect.Event) {
	const letter, row = 6.2, 11.0
	var taken [2][][2]float64
	for _, malicious := range []bool{true, false} {
		for _, e := range events {
			from := x(e.Start) + 2
			to := from + letter*float64(len(e.Kind))
			if e.Malicious != malicious || to > width {
				continue
			}
			for i := range taken {
				if slices.ContainsFunc(taken[i], func(t [2]float64) bool { return from < t[1] && t[0] < to }) {
					continue
				}
				taken[i] = append(taken[i], [2]float64{from, to})
				fmt.Fprintf(b, `<text x="%.1f" y="%g">%s</text>`, from, 10+row*float64(i), html.EscapeString(e.Kind))
				break
			}
		}
	}
}

// plotEvaluation draws detections over false alarms, and every capture's scores.
func plotEvaluation(labels []detect.Label, readings map[string][]detect.Reading, roc []detect.Result) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, plotStyle, "Gaitkeeper evaluation", "Gaitkeeper evaluation")
	const width, height, left = 520.0, 260.0, 40.0
	fmt.Fprintf(&b, "<h2>Detected share over false alarms an hour, by threshold</h2><svg viewBox=\"0 0 %g %g\" width=\"60%%\" role=\"img\">", width+left+20, height+40)
	most := 1.0
	for _, p := range roc {
		most = math.Max(most, p.FalseRate)
	}
	x := func(rate float64) float64 { return left + math.Log1p(rate)/math.Log1p(most)*width }
	y := func(share float64) float64 { return 10 + height*(1-share) }
	fmt.Fprintf(&b, `<polyline fill="none" stroke="#888" points="%g,%g %g,%g %g,%g"/>`, left, y(1), left, y(0), left+width, y(0))
	for _, s := range []float64{0, 0.25, 0.5, 0.75, 1} {
		fmt.Fprintf(&b, `<text x="2" y="%.1f">%.0f %%</text>`, y(s)+4, 100*s)
	}
	for _, r := range []float64{0, 1, 10, 100} {
		if r <= most {
			fmt.Fprintf(&b, `<text x="%.1f" y="%g">%g/h</text>`, x(r), height+26, r)
		}
	}
	b.WriteString(`<polyline fill="none" stroke="#246" points="`)
	sorted := slices.Clone(roc)
	slices.SortFunc(sorted, func(p, q detect.Result) int { return int(math.Copysign(1, q.Threshold-p.Threshold)) })
	for _, p := range sorted {
		fmt.Fprintf(&b, "%.1f,%.1f ", x(p.FalseRate), y(float64(p.Detected)/math.Max(float64(p.Events), 1)))
	}
	b.WriteString(`"/>`)
	for _, p := range sorted {
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="#246"><title>threshold %g: %d of %d, %.2f false an hour</title></circle>`,
			x(p.FalseRate), y(float64(p.Detected)/math.Max(float64(p.Events), 1)), p.Threshold, p.Detected, p.Events, p.FalseRate)
	}
	b.WriteString("</svg>\n<p>Below: scores over time; the dashed line is the limit (1), above it the scale is logarithmic. Red: attacks; green: harmless events; dots: alarms.</p>\n")
	for _, l := range labels {
		plotTimeline(&b, l.Capture, l.Duration, l.Events, readings[l.Capture])
	}
	return b.Bytes()
}
