package processing

import (
	"context"
	"strings"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// serveEpisode shows the windows around an alert, what was said of them then, and what
// would be said now.
func (s *Service) serveEpisode(ctx context.Context, r bus.EpisodeRequest) (bus.Episode, error) {
	at := strings.LastIndexByte(r.Alert, '.')
	if at < 0 {
		return bus.Episode{}, bus.Refuse(bus.CodeBadRequest, "alert %q: the name of an alert is STREAM.NUMBER", r.Alert)
	}
	ctx, cancel := s.cfg.Host.WithTimeout(ctx, callTimeout)
	defer cancel()
	type known struct {
		alert bus.Alert
		live  liveView
	}
	k, err := ask(ctx, s, gk.StreamID(r.Alert[:at]), func(st *stream) (known, error) {
		a := st.behaviour.alerts.find(r.Alert)
		if a == nil {
			return known{}, bus.Refuse(bus.CodeNotFound, "there is no alert %s: gaitkeeper alerts lists them", r.Alert)
		}
		return known{*a, st.behaviour.liveView()}, nil
	})
	if err != nil {
		return bus.Episode{}, err
	}
	st := s.find(gk.StreamID(r.Alert[:at]))
	reel, err := st.reel(ctx, numberOf(r.Alert))
	if err != nil {
		return bus.Episode{}, err
	}
	if reel == nil {
		return bus.Episode{}, bus.Refuse(bus.CodeNotFound, "no windows are kept around alert %s: they are of alerts about the source, while episode-context is not 0, and the oldest go first", r.Alert)
	}
	out := bus.Episode{Alert: r.Alert, Opened: k.alert.Opened, Closed: k.alert.Closed, Form: reel.form.String(), From: reel.from, Cutoff: k.live.cutoff}
	for _, d := range feature.Descriptions {
		out.Features = append(out.Features, d.Name)
	}
	for i := range reel.windows {
		out.Windows = append(out.Windows, shown(&reel.windows[i]))
	}
	contexts, err := st.contexts(ctx)
	if err != nil {
		return bus.Episode{}, err
	}
	if t, err := tune.ReadTrace(contexts[r.Alert]); err == nil {
		replayer := tune.NewReplayer(t.Layout, k.live.weights)
		eachSaid(replayer, t, reel, func(i int, kind string, peak float64) { out.Windows[i].Said, out.Windows[i].Then = kind, peak })
	}
	layout := k.live.layout
	if layout == nil {
		out.NotNow = "the stream is not judged at present"
		return out, nil
	}
	replayer := tune.NewReplayer(layout, k.live.weights)
	t, err := reel.judge(k.live, replayer, k.alert.Opened.Add(-before))
	if err != nil {
		out.NotNow = err.Error()
		return out, nil
	}
	eachSaid(replayer, t, reel, func(i int, kind string, peak float64) { out.Windows[i].Says, out.Windows[i].Now = kind, peak })
	out.Kind, out.Now = replayer.Peak(t, t.Index(k.alert.Opened.Add(-before)), t.Index(endOf(&k.alert, s.now())))
	return out, nil
}

// eachSaid gives what a trace says of each window that it covers.
func eachSaid(replayer *tune.Replayer, t *tune.Trace, r *reel, f func(i int, kind string, peak float64)) {
	first := int(t.From.Sub(r.from).Round(feature.Hop) / feature.Hop)
	for i := max(first, 0); i < min(first+t.Len(), len(r.windows)); i++ {
		if kind, peak := replayer.Peak(t, i-first, i-first+1); kind != "" {
			f(i, kind, peak)
		}
	}
}

// shown is a window for people and programs.
func shown(w *feature.Window) bus.EpisodeWindow {
	out := bus.EpisodeWindow{Packets: w.Packets, Bytes: w.Bytes, Frames: w.Frames, Lost: w.Lost, MaxGap: int64(w.MaxGap), Words: len(w.Tokens.All())}
	if v, ok := w.Vector(); ok {
		for _, x := range v {
			out.Numbers = append(out.Numbers, float32(x))
		}
	}
	return out
}
