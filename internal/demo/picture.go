package demo

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"time"
)

// Measures of the picture, in pixels.
const (
	pageWidth, pageHeight = 1000.0, 640.0
	plotLeft, plotWidth   = 78.0, 896.0
	scoreTop, scoreHeight = 114.0, 120.0
	flowTop, flowHeight   = 268.0, 130.0
	keyTop, keyHeight     = 424.0, 22.0
	lensTop, lensHeight   = 532.0, 60.0
)

// Colours.
const (
	inkCamera, inkThief, inkAlarm = "#1f4e79", "#c0392b", "#c0392b"
	inkPath, inkKey, inkText      = "#b9770e", "#1e8449", "#2b2b2b"
)

// picture draws into an SVG.
type picture struct {
	bytes.Buffer
	end time.Duration
}

func (p *picture) put(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *picture) text(x, y float64, style, format string, args ...any) {
	p.put(`<text x="%.1f" y="%.1f" %s>%s</text>`, x, y, style, html.EscapeString(fmt.Sprintf(format, args...)))
}

func (p *picture) x(t time.Duration) float64 {
	return plotLeft + plotWidth*min(max(t.Seconds()/p.end.Seconds(), 0), 1)
}

// Picture is an SVG, which stands alone, of the story: the score of every window, the
// packets, the keys, and the first moments of the attack under a lens. It is empty where
// no picture was asked for.
func (s Summary) Picture() []byte {
	if len(s.trace) == 0 || len(s.Attacks) == 0 {
		return nil
	}
	p := &picture{end: s.trace[len(s.trace)-1].at}
	p.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" font-family="system-ui,Segoe UI,Helvetica,Arial,sans-serif" font-size="12" fill="%s">`,
		pageWidth, pageHeight, pageWidth, pageHeight, inkText)
	p.put(`<rect width="100%%" height="100%%" fill="#fff"/>`)
	a := s.Attacks[0]
	p.text(20, 32, `font-size="20" font-weight="600"`, "gaitkeeper demo --attack %s --from %s", a.Kind, a.From)
	p.text(20, 54, `fill="#555"`, "The attacker: %s.", s.scenes.does)
	p.text(20, 72, `fill="#555"`, "%s", s.outcome())
	p.acts(s.scenes)
	p.scores(s.trace, s.scenes)
	p.flows(s.trace, a.Kind)
	p.keys(s.scenes)
	p.seconds()
	p.lens(s.scenes)
	p.put("</svg>")
	return p.Bytes()
}

// outcome is the story in a sentence.
func (s Summary) outcome() string {
	a := s.Attacks[0]
	since := func(t *float64) string { return brief(time.Duration((*t - *a.OnsetMS) * float64(time.Millisecond))) }
	switch {
	case s.Fault() != "" || a.OnsetMS == nil:
		return "Not as promised: " + s.Fault() + "."
	case a.AlarmMS == nil:
		return "No alarm and no new key: what a network can do accuses nobody."
	case a.LockedOutMS == nil || a.RotatedMS == nil:
		return fmt.Sprintf("Alarm of class %s after %s, and no new key: none would cure it.", a.Class, since(a.AlarmMS))
	}
	return fmt.Sprintf("Alarm of class %s after %s, device ready under a new key after %s, new key in force after %s; %d packets of the camera lost after the switch.",
		a.Class, since(a.AlarmMS), since(a.RotatedMS), since(a.LockedOutMS), s.LostAfterSwitch)
}

// brief is a duration with a digit or two.
func brief(t time.Duration) string {
	if t < time.Second {
		return fmt.Sprintf("%.0f ms", t.Seconds()*1000)
	}
	return fmt.Sprintf("%.1f s", t.Seconds())
}

// acts shades the times of learning and of the attack, behind everything.
func (p *picture) acts(c scenes) {
	const top, bottom = scoreTop - 30, keyTop + keyHeight
	band := func(from, to time.Duration, colour, name string) {
		if to <= from {
			return
		}
		p.put(`<rect x="%.1f" y="%g" width="%.1f" height="%g" fill="%s"/>`, p.x(from), top, max(p.x(to)-p.x(from), 1), bottom-top, colour)
		p.text(p.x(from)+4, top+12, `fill="#666" font-size="11"`, "%s", name)
	}
	band(0, cmp.Or(c.learned, p.end), "#eef2f6", "learning")
	if c.learned > 0 {
		p.text(p.x(c.learned)+4, top+12, `fill="#666" font-size="11"`, "clean")
	}
	if c.onset > 0 {
		band(c.onset, cmp.Or(c.over, p.end), "#fbe4e0", "attack")
	}
}

// level is the height of a score: linear up to the limit, logarithmic above it.
func level(score float64) float64 {
	y := score / 2
	if score > 1 {
		y = 0.5 + min(math.Log10(score)/4, 0.5)
	}
	return scoreTop + scoreHeight*(1-y)
}

// scores draws the score of every window, and the alarms.
func (p *picture) scores(all []moment, c scenes) {
	p.axis(scoreTop, scoreHeight, "score of the", "behaviour")
	for _, at := range []float64{0, 0.5, 1, 10, 100} {
		y := level(at)
		p.put(`<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#000" stroke-opacity=".08"/>`, plotLeft, plotLeft+plotWidth, y, y)
		p.text(plotLeft-6, y+4, `text-anchor="end" font-size="11"`, "%g", at)
	}
	p.put(`<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="5 4"/>`, plotLeft, plotLeft+plotWidth, level(1), level(1), inkAlarm)
	p.text(plotLeft+6, level(1)-4, `font-size="11" fill="`+inkAlarm+`"`, "limit: 1 is an alarm")
	type point struct {
		at    time.Duration
		score float64
	}
	var line []point
	for _, m := range all {
		if m.score >= 0 && m.at >= c.learned {
			line = append(line, point{m.at, m.score})
		}
	}
	for _, a := range c.alarms {
		if a.score > 0 {
			line = append(line, point{a.at, a.score})
		}
	}
	slices.SortStableFunc(line, func(a, b point) int { return cmp.Compare(a.at, b.at) })
	p.WriteString(`<polyline fill="none" stroke="` + inkCamera + `" stroke-width="1.6" stroke-linejoin="round" points="`)
	for _, q := range line {
		fmt.Fprintf(p, "%.1f,%.1f ", p.x(q.at), level(q.score))
	}
	p.put(`"/>`)
	for _, a := range c.alarms {
		ink, high := inkAlarm, a.score
		if a.class == "path" || a.class == "noise" {
			ink = inkPath
		}
		says := fmt.Sprintf("ALARM, class %s: %s", a.class, a.kind)
		if high == 0 {
			high, says = 1, says+" (waits for no score)"
		}
		x, y := p.x(a.at), level(high)
		p.put(`<circle cx="%.1f" cy="%.1f" r="5" fill="%s" stroke="#fff" stroke-width="1.5"><title>%s</title></circle>`, x, y, ink, html.EscapeString(a.evidence))
		anchor, dx := "start", 9.0
		if x > plotLeft+plotWidth*0.7 {
			anchor, dx = "end", -9.0
		}
		p.text(x+dx, y-7, fmt.Sprintf(`text-anchor="%s" font-weight="600" fill="%s" stroke="#fff" stroke-width="3" paint-order="stroke"`, anchor, ink), "%s", says)
	}
}

// flows draws packets a second.
func (p *picture) flows(all []moment, kind string) {
	p.axis(flowTop, flowHeight, "packets a second", "(mean of 1 s)")
	rate := func(of func(moment) float64) []float64 {
		out := make([]float64, len(all))
		for i := range all {
			j := max(i-4, 0) // over a second: video comes in pictures
			if dt := (all[i].at - all[j].at).Seconds(); dt > 0 {
				out[i] = (of(all[i]) - of(all[j])) / dt
			}
		}
		return out
	}
	camera := rate(func(m moment) float64 { return float64(m.delivered) })
	sent := rate(func(m moment) float64 { return float64(m.sent) })
	foreign := rate(func(m moment) float64 { return float64(m.foreign) })
	most := rounded(max(slices.Max(camera), slices.Max(sent), slices.Max(foreign), 10))
	y := func(v float64) float64 { return flowTop + flowHeight*(1-min(v/most, 1)) }
	for _, share := range []float64{0, 0.5, 1} {
		p.put(`<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#000" stroke-opacity=".08"/>`, plotLeft, plotLeft+plotWidth, y(share*most), y(share*most))
		p.text(plotLeft-6, y(share*most)+4, `text-anchor="end" font-size="11"`, "%g", share*most)
	}
	draw := func(values []float64, style string) {
		p.WriteString(`<polyline ` + style + ` points="`)
		for i, v := range values {
			fmt.Fprintf(p, "%.1f,%.1f ", p.x(all[i].at), y(v))
		}
		p.put(`"/>`)
	}
	at := plotLeft + 4
	legend := func(style, words string) {
		p.put(`<line x1="%g" x2="%g" y1="%g" y2="%g" %s/>`, at, at+18, flowTop-9, flowTop-9, style)
		p.text(at+23, flowTop-5, `font-size="11"`, "%s", words)
		at += 38 + 6.2*float64(len(words))
	}
	blue := `fill="none" stroke="` + inkCamera + `" stroke-width="1.6"`
	draw(camera, blue)
	legend(blue, "the camera's, delivered")
	if slices.Max(sent) > 0 {
		dashed, solid := `fill="none" stroke="`+inkThief+`" stroke-width="1.4" stroke-dasharray="2 3"`, `fill="none" stroke="`+inkThief+`" stroke-width="1.8"`
		draw(sent, dashed)
		draw(foreign, solid)
		legend(dashed, "the attacker's, sent")
		legend(solid, "the attacker's, delivered")
	}
}

// rounded is a little more, with one digit or two.
func rounded(v float64) float64 {
	ten := math.Pow(10, math.Floor(math.Log10(v)))
	for _, k := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8} {
		if v <= k*ten {
			return k * ten
		}
	}
	return 10 * ten
}

func (p *picture) axis(top, height float64, first, second string) {
	p.put(`<line x1="%g" x2="%g" y1="%g" y2="%g" stroke="#999"/>`, plotLeft, plotLeft, top, top+height)
	p.put(`<g transform="translate(16 %g) rotate(-90)" text-anchor="middle" font-size="11" fill="#555"><text>%s</text><text y="13">%s</text></g>`,
		top+height/2, html.EscapeString(first), html.EscapeString(second))
}

// keys draws which key the device sent under.
func (p *picture) keys(c scenes) {
	p.text(plotLeft-6, keyTop+15, `text-anchor="end" font-size="11"`, "key")
	from, epoch := time.Duration(0), 1
	colours := []string{"#d6dbe1", "#a9d5b8", "#9cc3e6", "#e6cf9c"}
	n := 0
	part := func(to time.Duration) {
		p.put(`<rect x="%.1f" y="%g" width="%.1f" height="%g" fill="%s" stroke="#fff"/>`, p.x(from), keyTop, max(p.x(to)-p.x(from), 0.5), keyHeight, colours[n%len(colours)])
		p.text(p.x(from)+6, keyTop+15, `font-size="11"`, "epoch %d", epoch)
		n++
	}
	for _, k := range c.keys {
		part(k.ready)
		from, epoch = k.ready, int(k.epoch)
	}
	part(p.end)
	for _, k := range c.keys {
		p.put(`<line x1="%.1f" x2="%.1f" y1="%g" y2="%g" stroke="%s" stroke-width="1.6"/>`, p.x(k.ready), p.x(k.ready), flowTop, keyTop+keyHeight, inkKey)
	}
}

// seconds writes the time below the plots.
func (p *picture) seconds() {
	step := 1.0
	for _, more := range []float64{2, 5, 10, 20, 60} {
		if p.end.Seconds()/step > 12 {
			step = more
		}
	}
	for t := 0.0; t <= p.end.Seconds(); t += step {
		at := p.x(time.Duration(t * float64(time.Second)))
		p.put(`<line x1="%.1f" x2="%.1f" y1="%g" y2="%g" stroke="#999"/>`, at, at, keyTop+keyHeight, keyTop+keyHeight+4)
		p.text(at, keyTop+keyHeight+17, `text-anchor="middle" font-size="11"`, "%g s", t)
	}
}

// lens shows what is too quick for the plots: from the attacker's first packet to the
// first one under the new key.
func (p *picture) lens(c scenes) {
	type mark struct {
		at   time.Duration
		ink  string
		says string
	}
	if c.onset == 0 {
		return
	}
	marks := []mark{{0, inkThief, "the attacker's first packet"}}
	for _, a := range c.alarms {
		if a.at >= c.onset {
			marks = append(marks, mark{a.at - c.onset, inkAlarm, "ALARM, class " + a.class})
			break
		}
	}
	for _, k := range c.keys {
		if k.ready >= c.onset {
			marks = append(marks, mark{k.ready - c.onset, inkKey, fmt.Sprintf("the device sends under epoch %d", k.epoch)})
			if k.cut >= k.ready {
				marks = append(marks, mark{k.cut - c.onset, inkKey, "its first packet is opened: the old key is worth nothing"})
			}
			break
		}
	}
	if len(marks) == 1 {
		return
	}
	last := marks[len(marks)-1].at
	reach := time.Duration(rounded(last.Seconds()*1000*1.05) * float64(time.Millisecond))
	x := func(t time.Duration) float64 { return plotLeft + plotWidth*0.62*min(t.Seconds()/reach.Seconds(), 1) }
	title := "From the attacker's first packet on"
	if reach < p.end/8 {
		title += ", magnified: " + brief(reach)
	}
	p.text(20, lensTop-38, `font-size="13" font-weight="600"`, "%s", title)
	y := lensTop + lensHeight
	p.put(`<line x1="%g" x2="%.1f" y1="%g" y2="%g" stroke="#999"/>`, plotLeft, x(reach), y, y)
	for i := range 6 {
		t := reach * time.Duration(i) / 5
		p.put(`<line x1="%.1f" x2="%.1f" y1="%g" y2="%g" stroke="#999"/>`, x(t), x(t), y, y+4)
		p.text(x(t), y+17, `text-anchor="middle" font-size="11"`, "%s", brief(t))
	}
	const row = 19.0
	for i, m := range marks {
		top := lensTop - 22 + row*float64(i)
		p.put(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%g" stroke="%s" stroke-width="1.6"/>`, x(m.at), x(m.at), top, y, m.ink)
		p.put(`<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`, x(m.at), top, m.ink)
		p.text(x(m.at)+8, top+4, fmt.Sprintf(`fill="%s" stroke="#fff" stroke-width="3" paint-order="stroke"`, m.ink), "%s: %s", brief(m.at), m.says)
	}
}
