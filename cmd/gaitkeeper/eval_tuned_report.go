package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// tunedReport is what eval --tuned prints as JSON.
type tunedReport struct {
	Fixed  []tunedFixed     `json:"fixed"` // of each start
	Folds  []tunedFoldNames `json:"folds"`
	Curves []tunedCurve     `json:"curves"`
	New    []tunedFold      `json:"new_streams"`
	Long   []tunedDays      `json:"long"`
}

// tunedFoldNames are the captures of one division.
type tunedFoldNames struct {
	TunedOn []string `json:"tuned_on"`
	Judged  []string `json:"judged"`
}

// tunedCurve is a method from one start: points by answers, of every seed.
type tunedCurve struct {
	Start  string         `json:"start"`
	Method string         `json:"method"`
	Runs   [][]tunedPoint `json:"tuned_on"` // on the captures that were answered for
	Held   [][]tunedPoint `json:"held_out"` // on the others
	Lost   [][]string     `json:"lost"`     // of each seed: attacks among the former that are not found at the end
	Rails  tunedRails     `json:"rails"`    // of all seeds
}

// at gives mean, least and most of a number of all seeds after some answers.
func at(runs [][]tunedPoint, n int, of func(tunedPoint) float64) (mean, least, most float64) {
	least, most = math.Inf(1), math.Inf(-1)
	for _, r := range runs {
		v := of(r[n])
		mean += v / float64(len(runs))
		least, most = min(least, v), max(most, v)
	}
	return mean, least, most
}

// bound0 is the least bound that so much traffic shows, one doubtful alarm let through by
// half.
func bound0(p tunedPoint) float64 {
	quiet := tune.Stats{False: 0.5, Hours: p.Hours}
	return quiet.Bound()
}

func (r tunedReport) print(w io.Writer) error {
	for _, f := range r.Fixed {
		fmt.Fprintf(w, "Fixed cut-offs for all streams, every detector with a weight of %g; so much traffic can show %.2f false an hour:\n", f.Weight, max(tunedGoal.Budget, bound0(f.Best)))
		rows := [][]string{{"CUT-OFF", "DETECTED", "FALSE", "HOURS", "AT MOST/H", "COST"}}
		for i, p := range append(f.Points, f.Best) {
			name := fmt.Sprintf("%.2f", p.Cutoff)
			if i == len(f.Points) {
				name = "best: " + name
			}
			rows = append(rows, []string{name, fmt.Sprintf("%.0f of %.0f", p.Detected, p.Events), fmt.Sprintf("%.0f", p.False), fmt.Sprintf("%.2f", p.Hours), fmt.Sprintf("%.2f", p.Bound), fmt.Sprintf("%.2f", p.Cost)})
		}
		if err := table(w, rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for k, f := range r.Folds {
		fmt.Fprintf(w, "Half %d: tuned on %s; judged on %s.\n", k+1, strings.Join(f.TunedOn, " "), strings.Join(f.Judged, " "))
	}
	fmt.Fprintln(w, "Every capture is tuned on in one half and held out in the other: nobody answered for it there, and it begins with what a new stream would. The plot shows the held-out cost.")
	rows := [][]string{{"START", "METHOD", "ANSWERS", "JUDGED ON", "COST", "FALSE", "AT MOST/H", "DETECTED", "CUT-OFF"}}
	for i := range r.Curves {
		c := &r.Curves[i]
		for _, n := range []int{0, 5, 10, tunedAnswers} {
			for _, on := range []struct {
				name string
				runs [][]tunedPoint
			}{{"held out", c.Held}, {"tuned on", c.Runs}} {
				span := func(of func(tunedPoint) float64, digits int) string {
					mean, least, most := at(on.runs, n, of)
					return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, mean, digits, least, digits, most)
				}
				rows = append(rows, []string{
					c.Start, c.Method, fmt.Sprint(n), on.name, span(func(p tunedPoint) float64 { return p.Cost }, 2), span(func(p tunedPoint) float64 { return p.False }, 1),
					span(func(p tunedPoint) float64 { return p.Bound }, 1), span(func(p tunedPoint) float64 { return p.Detected }, 1), span(func(p tunedPoint) float64 { return p.Cutoff }, 2),
				})
			}
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, c := range r.Curves {
		fmt.Fprintf(w, "%s, %s: %d settings came to decide; %d were rejected in the shadow, %d taken back while they were young; %d times an operator had to ask because too little was known, %d times that was too little as well.\n",
			c.Start, c.Method, c.Rails.Live, c.Rails.Rejected, c.Rails.Taken, c.Rails.Asked, c.Rails.Refused)
		for seed, lost := range c.Lost {
			if c.Method == "controller" && len(lost) > 0 {
				fmt.Fprintf(w, "%s, %s, seed %d: not found at the end, of what was answered for: %s\n", c.Start, c.Method, seed, strings.Join(lost, "; "))
			}
		}
	}
	if len(r.New) > 0 {
		fmt.Fprintln(w, "\nWeights and persistence for the fleet, found on the half that was tuned on, judged on the half that was held out (equal numbers of trials; the difference with its 95 % interval, captures drawn anew):")
		rows = [][]string{{"METHOD", "FALSE", "HOURS", "AT MOST/H", "DETECTED", "COST", "AGAINST THE CONTROLLER", "SECONDS"}}
		for _, n := range r.New {
			rows = append(rows, []string{n.Method, fmt.Sprintf("%.1f", n.False), fmt.Sprintf("%.2f", n.Hours), fmt.Sprintf("%.1f", n.Bound), fmt.Sprintf("%.1f of %.0f", n.Detected, n.Events), fmt.Sprintf("%.2f (%.2f to %.2f)", n.Cost, n.Least, n.Most),
				fmt.Sprintf("%+.2f (%+.2f to %+.2f)", n.Against[0], n.Against[1], n.Against[2]), fmt.Sprintf("%.1f", n.Seconds)})
		}
		if err := table(w, rows); err != nil {
			return err
		}
	}
	if len(r.Long) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nBudget over long quiet traffic with drift and changes of the network:")
	rows = [][]string{{"ONE IN", "STREAMS", "DAYS", "FALSE ALARMS, FIRST DAY", "LATER", "ROTATIONS", "GRANTED", "SHARE", "WORST STREAM", "GRANTED IT", "MOST IN 1", "MOST IN 10", "NONE LEFT", "WORST", "REJECTED", "TAKEN BACK"}}
	for _, l := range r.Long {
		rows = append(rows, []string{l.Every, fmt.Sprint(l.Streams), fmt.Sprint(l.Days), fmt.Sprint(l.First), fmt.Sprint(l.Later), fmt.Sprint(l.Rotations), fmt.Sprint(l.Budget), fmt.Sprintf("%.0f %%", 100*float64(l.Rotations)/float64(l.Budget)),
			fmt.Sprint(l.Worst), fmt.Sprintf("%.0f", l.Granted), fmt.Sprint(l.InOne), fmt.Sprint(l.InTen), fmt.Sprintf("%.1f %%", 100*l.Spent), fmt.Sprintf("%.1f %%", 100*l.SpentMost), fmt.Sprint(l.Rejected), fmt.Sprint(l.Taken)})
	}
	return table(w, rows)
}

var tunedColours = map[string]string{"controller": "#1b6ca8", "bayesian": "#c0392b", "random": "#7f8c8d", "grid": "#d68910"}

// svg draws the cost over the answers, from each start: the mean of the seeds, and
// between the least and the most of them.
func (r tunedReport) svg() []byte {
	const width, height, left, top = 360.0, 240.0, 46.0, 34.0
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="11"><rect width="100%%" height="100%%" fill="#fff"/>`, 2*(width+left)+30, height+top+60)
	lowest, highest := math.Inf(1), math.Inf(-1)
	for _, f := range r.Fixed {
		lowest, highest = min(lowest, f.Best.Cost), max(highest, f.Best.Cost)
	}
	for i := range r.Curves {
		for n := range tunedAnswers + 1 {
			_, least, most := at(r.Curves[i].Held, n, func(p tunedPoint) float64 { return p.Cost })
			lowest, highest = min(lowest, least), max(highest, most)
		}
	}
	lowest = max(lowest, 0.01)
	for panel, start := range tunedStarts {
		x0 := left + float64(panel)*(width+left+10)
		x := func(n int) float64 { return x0 + float64(n)/tunedAnswers*width }
		y := func(cost float64) float64 {
			return top + height*(1-math.Log(max(cost, lowest)/lowest)/math.Log(highest/lowest*1.1))
		}
		fmt.Fprintf(&b, `<text x="%.0f" y="16" font-weight="bold">streams begin %s</text><path d="M%.1f %.1fV%.1fH%.1f" fill="none" stroke="#888"/>`, x0, start.name, x0, top, top+height, x0+width)
		for v := math.Pow(10, math.Ceil(math.Log10(lowest))); v <= highest; v *= 10 {
			fmt.Fprintf(&b, `<path d="M%.1f %.1fh%g" stroke="#eee"/><text x="%.1f" y="%.1f" text-anchor="end">%g</text>`, x0, y(v), width, x0-4, y(v)+4, v)
		}
		for n := 0; n <= tunedAnswers; n += 5 {
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%d</text>`, x(n), top+height+14, n)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">answers for each stream</text><path d="M%.1f %.1fh%g" stroke="#333" stroke-dasharray="4 3"/>`, x0+width/2, top+height+30, x0, y(r.Fixed[panel].Best.Cost), width)
		for i := range r.Curves {
			c := &r.Curves[i]
			if c.Start != start.name {
				continue
			}
			var up, down, line bytes.Buffer
			for n := range tunedAnswers + 1 {
				mean, least, most := at(c.Held, n, func(p tunedPoint) float64 { return p.Cost })
				fmt.Fprintf(&line, "%.1f,%.1f ", x(n), y(mean))
				fmt.Fprintf(&up, "%.1f,%.1f ", x(n), y(most))
				m := tunedAnswers - n
				_, least, _ = at(c.Held, m, func(p tunedPoint) float64 { return p.Cost })
				fmt.Fprintf(&down, "%.1f,%.1f ", x(m), y(least))
			}
			colour := tunedColours[c.Method]
			fmt.Fprintf(&b, `<polygon points="%s%s" fill="%s" fill-opacity="0.10"/><polyline points="%s" fill="none" stroke="%s" stroke-width="1.8"/>`, up.String(), down.String(), colour, line.String(), colour)
		}
	}
	for i, m := range tunedMethods {
		fmt.Fprintf(&b, `<path d="M%d %.1fh18" stroke="%s" stroke-width="2"/><text x="%d" y="%.1f">%s</text>`, 50+i*110, top+height+48, tunedColours[m], 72+i*110, top+height+52, m)
	}
	fmt.Fprintf(&b, `<path d="M%d %.1fh18" stroke="#333" stroke-dasharray="4 3"/><text x="%d" y="%.1f">best fixed setting</text></svg>`, 600, top+height+48, 622, top+height+52)
	return b.Bytes()
}
