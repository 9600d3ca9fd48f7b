package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/detect"
)

// writeFigures writes the figures of an evaluation as SVG files that stand alone:
// roc.svg, time.svg, and traces.svg with the scores of the captures named.
func writeFigures(dir string, r evalReport, labels []detect.Label, readings map[string][]detect.Reading, traces []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	figures := map[string][]byte{"roc.svg": rocFigure(r), "time.svg": timeFigure(r)}
	if len(traces) > 0 {
		var chosen []detect.Label
		for _, name := range traces {
			i := slices.IndexFunc(labels, func(l detect.Label) bool { return l.Capture == name })
			if i < 0 {
				return fmt.Errorf("no capture %s among the labels", name)
			}
			chosen = append(chosen, labels[i])
		}
		figures["traces.svg"] = traceFigure(chosen, readings)
	}
	for name, b := range figures {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const (
	figureWidth, figureHeight = 560.0, 300.0 // of the plotted area
	figureLeft, figureTop     = 60.0, 16.0
	colourSource, colourAll   = "#1f4e79", "#c0722a"
)

func beginFigure(b *bytes.Buffer, width, height float64) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" font-family="system-ui,sans-serif" font-size="12" fill="#333">`+"\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		width, height, width, height)
}

// axes draws the frame with its grid: shares upward, ticks to the right.
func axes(b *bytes.Buffer, title string, ticks []float64, x func(float64) float64, name func(float64) string) {
	for _, share := range []float64{0, 0.25, 0.5, 0.75, 1} {
		y := figureTop + figureHeight*(1-share)
		fmt.Fprintf(b, `<line x1="%g" x2="%g" y1="%g" y2="%g" stroke="#ddd"/><text x="%g" y="%g" text-anchor="end">%.0f %%</text>`+"\n",
			figureLeft, figureLeft+figureWidth, y, y, figureLeft-6, y+4, 100*share)
	}
	for _, t := range ticks {
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%g" y2="%g" stroke="#ddd"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`+"\n",
			x(t), x(t), figureTop, figureTop+figureHeight, x(t), figureTop+figureHeight+18, name(t))
	}
	fmt.Fprintf(b, `<text x="%g" y="%g" text-anchor="middle">%s</text>`+"\n", figureLeft+figureWidth/2, figureTop+figureHeight+38, html.EscapeString(title))
}

func line(b *bytes.Buffer, points [][2]float64, colour, name string, row int) {
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, colour)
	for _, p := range points {
		fmt.Fprintf(b, "%.1f,%.1f ", p[0], p[1])
	}
	y := figureTop + figureHeight - 14 - 18*float64(row)
	fmt.Fprintf(b, `"/><text x="%g" y="%g" text-anchor="end" fill="%s">%s</text>`+"\n", figureLeft+figureWidth-8, y, colour, html.EscapeString(name))
}

// rocFigure draws the share detected over false alarms an hour; a rate of zero
// stands at the left edge.
func rocFigure(r evalReport) []byte {
	var b bytes.Buffer
	beginFigure(&b, figureLeft+figureWidth+24, figureTop+figureHeight+50)
	least, most := 0.01, 300.0
	x := func(rate float64) float64 {
		return figureLeft + figureWidth*math.Log(max(rate, least)/least)/math.Log(most/least)
	}
	axes(&b, "false alarms an hour (left edge: none), by threshold; the ring is the limit, 1", []float64{0.01, 0.1, 1, 10, 100}, x, func(t float64) string { return fmt.Sprintf("%g", t) })
	for row, c := range []struct {
		roc          []detect.Result
		colour, name string
	}{{r.ROCSource, colourSource, "class source, of attacks that are no relay or throttle"}, {r.ROC, colourAll, "all alarms, all attacks"}} {
		roc := slices.Clone(c.roc)
		slices.SortFunc(roc, func(p, q detect.Result) int { return int(math.Copysign(1, q.Threshold-p.Threshold)) })
		var points [][2]float64
		for _, p := range roc {
			at := [2]float64{x(p.FalseRate), figureTop + figureHeight*(1-float64(p.Detected)/math.Max(float64(p.Events), 1))}
			points = append(points, at)
			radius, fill := 2.5, c.colour
			if p.Threshold == 1 {
				radius, fill = 6, "none"
			}
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="%g" fill="%s" stroke="%s"><title>threshold %g: %d of %d, %.2f an hour</title></circle>`+"\n",
				at[0], at[1], radius, fill, c.colour, p.Threshold, p.Detected, p.Events, p.FalseRate)
		}
		line(&b, points, c.colour, c.name, row)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// timeFigure draws which share of the attacks was detected by when.
func timeFigure(r evalReport) []byte {
	var b bytes.Buffer
	beginFigure(&b, figureLeft+figureWidth+24, figureTop+figureHeight+50)
	x := func(s float64) float64 { return figureLeft + figureWidth*math.Min(s, 10)/10 }
	axes(&b, "seconds after the attack's start", []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, x, func(t float64) string { return fmt.Sprintf("%g", t) })
	for row, c := range []struct {
		r            detect.Result
		colour, name string
	}{{r.Source, colourSource, "class source, of attacks that are no relay or throttle"}, {r.All, colourAll, "all alarms, all attacks"}} {
		points := [][2]float64{{x(0), figureTop + figureHeight}}
		for i, t := range c.r.Times {
			if t > 10 {
				break
			}
			before := points[len(points)-1]
			points = append(points, [2]float64{x(t), before[1]}, [2]float64{x(t), figureTop + figureHeight*(1-float64(i+1)/float64(c.r.Events))})
		}
		points = append(points, [2]float64{x(10), points[len(points)-1][1]})
		line(&b, points, c.colour, c.name, row)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// traceFigure draws the scores of captures over time, one below the other.
func traceFigure(labels []detect.Label, readings map[string][]detect.Reading) []byte {
	const width, height, each = 900.0, 90.0, 150.0
	var b bytes.Buffer
	beginFigure(&b, width, each*float64(len(labels)))
	for i, l := range labels {
		fmt.Fprintf(&b, `<g transform="translate(0 %g)"><text x="2" y="18">%s</text><g transform="translate(0 26)" font-size="10">`+"\n", each*float64(i), html.EscapeString(l.Capture))
		drawTimeline(&b, width, height, l.Duration, l.Events, readings[l.Capture])
		b.WriteString("</g></g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
