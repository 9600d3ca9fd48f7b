package main

import (
	"bytes"
	"fmt"
	"html"
	"math"

	"github.com/gaitkeeper/gaitkeeper/internal/detect"
)

// capturePlot is what is drawn of one capture.
type capturePlot struct {
	captureSummary
	readings []detect.Reading
	alarms   []windowLine
}

const captureStyle = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>%[1]s</title>
<style>
body{font:14px/1.45 system-ui,"Segoe UI",Helvetica,Arial,sans-serif;margin:2em auto;padding:0 1.5em;max-width:72em;color:#2b2b2b;background:#fff}
h1{font-size:1.5em;margin:0 0 .2em}h2{font-size:1.15em;margin:2em 0 .1em}p{margin:.2em 0 .8em;color:#555}
svg{display:block;width:100%%;height:auto}svg text{font-size:11px;fill:#444}
table{border-collapse:collapse;margin:.6em 0;width:100%%}td,th{text-align:left;vertical-align:top;padding:.25em .8em .25em 0;border-top:1px solid #ddd}
th{font-weight:600;border-top:0}td:first-child,td:nth-child(4){font-variant-numeric:tabular-nums}td:not(:last-child){white-space:nowrap}
.source{color:#c0392b;font-weight:600}.path{color:#b9770e;font-weight:600}.key span{display:inline-block;margin-right:1.4em}.key i{display:inline-block;width:1.3em;height:.75em;margin-right:.4em;vertical-align:-.05em}
</style>
<h1>%[1]s</h1>
`

// plotCaptures is an HTML page, which needs nothing else, of captures without labels.
func plotCaptures(plots []capturePlot) []byte {
	var b bytes.Buffer
	title := "Gaitkeeper: scores of recorded streams"
	if len(plots) == 1 {
		title = "Gaitkeeper: " + plots[0].name
	}
	fmt.Fprintf(&b, captureStyle, html.EscapeString(title))
	b.WriteString(`<p>Every 250 ms the stream is held against what was learned of it, and the detector that is furthest beyond its limit gives the score. ` +
		`A score of 1 is an alarm; from then on the episode is shown below 1 until the stream was calm.</p>
<p class="key"><span><i style="background:#eef2f6"></i>learned</span><span><i style="background:#1f4e79;height:2px;vertical-align:.3em"></i>score</span>` +
		`<span><i style="border-top:2px dashed #c0392b;height:0;vertical-align:.3em"></i>limit</span><span><i style="background:#c0392b;border-radius:50%;width:.75em"></i>alarm, class source: would change the key</span>` +
		`<span><i style="background:#b9770e;border-radius:50%;width:.75em"></i>alarm, class path: would not</span></p>
`)
	for _, p := range plots {
		p.draw(&b)
	}
	b.WriteString("</html>\n")
	return b.Bytes()
}

// Measures of a capture's picture.
const (
	captureWidth, captureHeight = 1000.0, 190.0
	captureLeft, captureTop     = 46.0, 24.0
)

func (p capturePlot) draw(b *bytes.Buffer) {
	length := p.length.Seconds()
	fmt.Fprintf(b, "<h2>%s</h2><p>%d packets to %s, SSRC %08x, payload %s, %.0f s from %s UTC", html.EscapeString(p.name), p.packets, html.EscapeString(p.flow.String()),
		p.ssrc, p.form, length, p.start.UTC().Format("2006-01-02 15:04:05"))
	if p.partial {
		b.WriteString("; packets are cut: what depends on payload is seen in part")
	}
	b.WriteString("</p>\n")
	for _, broken := range p.damage {
		fmt.Fprintf(b, "<p>Damaged: %s</p>\n", html.EscapeString(broken))
	}
	if p.profile == nil {
		fmt.Fprintf(b, "<p>Nothing is left to judge: the baseline takes %s.</p>\n", p.baseline)
		return
	}
	x := func(t float64) float64 { return captureLeft + (captureWidth-captureLeft-10)*t/math.Max(length, 1) }
	y := func(score float64) float64 { return captureTop + scoreY(score, captureHeight) }
	fmt.Fprintf(b, `<svg viewBox="0 0 %g %g" role="img" aria-label="scores over time">`+"\n", captureWidth, captureTop+captureHeight+36)
	fmt.Fprintf(b, `<rect x="%.1f" y="%g" width="%.1f" height="%g" fill="#eef2f6"/><text x="%.1f" y="%g">learned: %s</text>`+"\n",
		x(0), captureTop, x(p.baseline.Seconds())-x(0), captureHeight, x(0)+5, captureTop+13, p.baseline)
	for _, score := range []float64{0, 0.5, 1, 10, 100} {
		fmt.Fprintf(b, `<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#000" stroke-opacity=".1"/><text x="%g" y="%.1f" text-anchor="end">%g</text>`+"\n",
			captureLeft, captureWidth-10, y(score), y(score), captureLeft-6, y(score)+4, score)
	}
	step := timeStep(length)
	for t := 0.0; t <= length; t += step {
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%g" y2="%g" stroke="#999"/><text x="%.1f" y="%g" text-anchor="middle">%g</text>`+"\n",
			x(t), x(t), captureTop+captureHeight, captureTop+captureHeight+4, x(t), captureTop+captureHeight+17, t)
	}
	fmt.Fprintf(b, `<text x="%g" y="%g" text-anchor="middle">seconds from the first packet</text><text transform="translate(11 %g) rotate(-90)" text-anchor="middle">score</text>`+"\n",
		captureLeft+(captureWidth-captureLeft)/2, captureTop+captureHeight+32, captureTop+captureHeight/2)
	fmt.Fprintf(b, `<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#c0392b" stroke-dasharray="5 4"/>`+"\n", captureLeft, captureWidth-10, y(1), y(1))
	b.WriteString(`<polyline fill="none" stroke="#1f4e79" stroke-width="1.4" stroke-linejoin="round" points="`)
	for _, r := range p.readings {
		fmt.Fprintf(b, "%.1f,%.1f ", x(r.T), y(r.Score))
	}
	b.WriteString(`"/>` + "\n")
	free := 0.0 // the names of alarms that are close would cover each other
	for _, a := range p.alarms {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4.5" fill="%s" stroke="#fff" stroke-width="1.2"><title>%.2f s: %s</title></circle>`+"\n",
			x(a.T), y(a.Score), classColour(a.Class), a.T, html.EscapeString(a.Evidence))
		if x(a.T) < free {
			continue
		}
		name := fmt.Sprintf("%.0f s %s", a.T, a.Kind)
		at, anchor := x(a.T)+7, "start"
		if at+7*float64(len(name)) > captureWidth {
			at, anchor = x(a.T)-7, "end"
		}
		free = x(a.T) + 7*float64(len(name)) + 12
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-weight="600" style="fill:%s" stroke="#fff" stroke-width="3" paint-order="stroke">%s</text>`+"\n",
			at, y(a.Score)-8, anchor, classColour(a.Class), html.EscapeString(name))
	}
	b.WriteString("</svg>\n")
	p.list(b)
}

// list writes the alarms with their evidence.
func (p capturePlot) list(b *bytes.Buffer) {
	if len(p.alarms) == 0 {
		b.WriteString("<p>No alarm.</p>\n")
		return
	}
	b.WriteString("<table><tr><th>at</th><th>class</th><th>kind</th><th>score</th><th>evidence</th></tr>\n")
	for _, a := range p.alarms {
		fmt.Fprintf(b, `<tr><td>%.2f s</td><td class="%s">%s</td><td>%s</td><td>%.2f</td><td>%s</td></tr>`+"\n",
			a.T, a.Class, a.Class, html.EscapeString(a.Kind), a.Score, html.EscapeString(a.Evidence))
	}
	b.WriteString("</table>\n")
}

func classColour(c detect.Class) string {
	if c == detect.Path {
		return "#b9770e"
	}
	return "#c0392b"
}

// timeStep is the distance of about ten marks on an axis of so many seconds.
func timeStep(length float64) float64 {
	for _, step := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600} {
		if length/step <= 12 {
			return step
		}
	}
	return 4 * 3600
}
