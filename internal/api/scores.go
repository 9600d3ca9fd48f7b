package api

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

const (
	maxDetectors = 48
	// scoresFor is how long scores are shown after the last that came.
	scoresFor = 10 * time.Second
)

// knownClasses closes the set of the class label.
var knownClasses = map[string]bool{
	string(bus.ClassProof): true, string(bus.ClassSource): true, string(bus.ClassIdentity): true,
	string(bus.ClassPath): true, string(bus.ClassNoise): true, string(bus.ClassProfile): true,
}

// scores are the streams' distances from their profiles, as metrics.
type scores struct {
	alerts *prometheus.CounterVec

	mu    sync.Mutex
	last  map[gk.StreamID]scored
	kinds map[string]bool
}

type scored struct {
	bus.StreamScores
	at time.Time
}

func describeScore(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gaitkeeper_"+name, help, append([]string{"stream"}, labels...), nil)
}

var (
	descScore    = describeScore("stream_anomaly_score", "Distance of a stream from its profile; 1 is an alert.")
	descDetector = describeScore("stream_detector_score", "Distance of a stream from its profile, by detector; 1 is its limit.", "detector")
	descStage    = describeScore("stream_profile_stage", "Stage of a stream's profile: always 1, the label names it.", "stage")
	descOpen     = describeScore("stream_alerts_open", "Alerts of a stream that are open.")
)

func newScores() *scores {
	return &scores{
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gaitkeeper_alerts_total", Help: "Alerts opened, by class."}, []string{"class"}),
		last:   map[gk.StreamID]scored{},
		kinds:  map[string]bool{},
	}
}

func (s *scores) hear(u bus.StreamScores) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.last[u.Stream]; !ok && len(s.last) >= maxStreamSeries {
		return
	}
	s.last[u.Stream] = scored{u, time.Now()}
}

func (s *scores) event(e gk.Event) {
	if e.Kind != gk.EventAlertOpened {
		return
	}
	class := e.Detail["class"]
	if !knownClasses[class] {
		class = otherLabel
	}
	s.alerts.WithLabelValues(class).Inc()
}

// Describe implements [prometheus.Collector].
func (s *scores) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descScore, descDetector, descStage, descOpen} {
		c <- d
	}
}

// Collect implements [prometheus.Collector].
func (s *scores) Collect(c chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range s.last {
		if time.Since(u.at) > scoresFor {
			delete(s.last, id)
			continue
		}
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{string(id)}, labels...)...)
		}
		gauge(descScore, u.Score)
		gauge(descOpen, float64(u.Open))
		switch u.Stage {
		case bus.StageLoading, bus.StageLearning, bus.StageProvisional, bus.StageMature:
			gauge(descStage, 1, string(u.Stage))
		}
		for kind, v := range u.Detectors {
			if !s.kinds[kind] && len(s.kinds) >= maxDetectors {
				continue
			}
			s.kinds[kind] = true
			gauge(descDetector, v, kind)
		}
	}
}
