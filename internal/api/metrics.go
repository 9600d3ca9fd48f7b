package api

import (
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Labels take their values from closed sets or from enrolled streams, up to
// these limits, so that no peer can make the metrics grow.
const (
	maxStreamSeries = 10000
	maxCauses       = 32
	otherLabel      = "other"
	// statusFor is how long a transport's status, told every second, is shown after the
	// last that came: a transport that is gone says nothing of now.
	statusFor = 10 * time.Second
)

// knownReasons closes the set of the reason label.
var knownReasons = map[gk.Reason]bool{
	gk.ReasonStart: true, gk.ReasonSchedule: true, gk.ReasonPackets: true, gk.ReasonOperator: true,
	gk.ReasonDiscontinuity: true, gk.ReasonRecovery: true, gk.ReasonProof: true, gk.ReasonSource: true,
}

// knownKinds closes the set of the kind label.
var knownKinds = map[gk.EventKind]bool{
	gk.EventSessionStarted: true, gk.EventSessionEnded: true, gk.EventSessionRejected: true, gk.EventSessionRecovered: true,
	gk.EventRotationDecided: true, gk.EventEpochArmed: true, gk.EventGrantSent: true, gk.EventRotationDone: true,
	gk.EventEpochFirstPacket: true, gk.EventEpochRetired: true, gk.EventKeyState: true, gk.EventDeviceEnrolled: true,
	gk.EventDeviceRevoked: true, gk.EventTokenIssued: true, gk.EventProof: true, gk.EventOutsider: true,
	gk.EventServiceStarted: true, gk.EventServiceStopped: true, gk.EventKEKRotated: true,
	gk.EventAlertOpened: true, gk.EventAlertChanged: true, gk.EventAlertClosed: true, gk.EventProfileStage: true,
	gk.EventProfileRefused: true, gk.EventTuningRefused: true, gk.EventAlertsRefused: true, gk.EventPlannedChange: true, gk.EventAnnouncementRefused: true, gk.EventRenewalRefused: true,
	gk.EventStreamDisarmed: true, gk.EventStreamHeld: true, gk.EventStreamFreed: true, gk.EventLeaseLapsed: true, gk.EventLeaseRenewed: true, gk.EventAuditBroken: true,
	gk.EventLabel: true, gk.EventLabelContested: true, gk.EventSettingProposed: true, gk.EventSettingLive: true,
	gk.EventSettingRejected: true, gk.EventSettingReverted: true, gk.EventTuningAuto: true,
	gk.EventIdentity: true, gk.EventBudgetSpent: true,
}

type seriesKey struct {
	transport gk.TransportID
	stream    gk.StreamID
}

// told is a status, and when it came.
type told struct {
	bus.StreamStatus
	at time.Time
}

// metrics turns events and transport status into Prometheus metrics. The
// per-stream ones are read from the last status at each scrape.
type metrics struct {
	registry  *prometheus.Registry
	events    *prometheus.CounterVec
	rotations *prometheus.CounterVec
	latency   prometheus.Histogram
	scores    *scores

	mu     sync.Mutex
	last   map[seriesKey]told
	causes map[string]bool
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gaitkeeper_"+name, help, append([]string{"stream", "transport"}, labels...), nil)
}

var (
	descDelivered = describe("stream_packets_delivered_total", "Packets decrypted and delivered in the running session.")
	descBytes     = describe("stream_payload_bytes_total", "RTP payload bytes delivered in the running session.")
	descLost      = describe("stream_packets_lost_total", "Gaps in the running session that were given up.")
	descDropped   = describe("stream_packets_dropped_total", "Packets not delivered in the running session, by cause.", "cause")
	descEpoch     = describe("stream_epoch", "Key epoch of the newest accepted packet.")
	descSilent    = describe("stream_silent_seconds", "Time since the last accepted packet.")
	descViewers   = describe("stream_viewers", "HTTP viewers connected.")

	descBusy = prometheus.NewDesc("gaitkeeper_requests_refused_total", "Requests between services that a responder of this process refused, because it worked on as many as it takes.", []string{"subject"}, nil)
)

func newMetrics(version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gaitkeeper_events_total", Help: "Events, by kind.",
		}, []string{"kind"}),
		rotations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gaitkeeper_rotations_total", Help: "Key rotations that a device confirmed, by reason.",
		}, []string{"reason"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gaitkeeper_rotation_seconds", Help: "From the decision for a new key to the device's confirmation of it.",
			Buckets: []float64{.001, .002, .003, .005, .01, .015, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		last:   map[seriesKey]told{},
		causes: map[string]bool{},
		scores: newScores(),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gaitkeeper_build_info", Help: "Always 1; the labels name the build.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(build, m.events, m.rotations, m.latency, m, m.scores, m.scores.alerts,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

func (m *metrics) event(e gk.Event) {
	kind := string(e.Kind)
	if !knownKinds[e.Kind] {
		kind = otherLabel
	}
	m.events.WithLabelValues(kind).Inc()
	m.scores.event(e)
	switch e.Kind {
	case gk.EventRotationDone:
		reason := string(e.Reason)
		if !knownReasons[e.Reason] {
			reason = otherLabel
		}
		m.rotations.WithLabelValues(reason).Inc()
		if e.Took > 0 {
			m.latency.Observe(e.Took.Seconds())
		}
	case gk.EventSessionEnded:
		m.mu.Lock()
		defer m.mu.Unlock()
		for k, s := range m.last {
			if k.stream == e.Stream && s.Session == e.Session {
				delete(m.last, k)
			}
		}
	}
}

func (m *metrics) status(s bus.StreamStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := seriesKey{s.Transport, s.Stream}
	if _, ok := m.last[k]; !ok && len(m.last) >= maxStreamSeries {
		return
	}
	m.last[k] = told{s, time.Now()}
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDelivered, descBytes, descLost, descDropped, descEpoch, descSilent, descViewers, descBusy} {
		c <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(c chan<- prometheus.Metric) {
	for subject, n := range bus.TurnedAway() {
		c <- prometheus.MustNewConstMetric(descBusy, prometheus.CounterValue, float64(n), subject)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, s := range m.last {
		if time.Since(s.at) > statusFor {
			delete(m.last, k)
			continue
		}
		labels := []string{string(k.stream), string(k.transport)}
		counter := func(d *prometheus.Desc, v uint64, more ...string) {
			c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append(labels, more...)...)
		}
		gauge := func(d *prometheus.Desc, v float64) {
			c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
		}
		counter(descDelivered, s.Delivered)
		counter(descBytes, s.Bytes)
		counter(descLost, s.Lost)
		var other uint64
		for cause, n := range s.Dropped {
			if !m.admit(cause) {
				other += n
				continue
			}
			counter(descDropped, n, cause)
		}
		if other > 0 {
			counter(descDropped, other, otherLabel)
		}
		gauge(descEpoch, float64(s.Epoch))
		gauge(descSilent, float64(s.SilentMs)/1000)
		gauge(descViewers, float64(s.Viewers))
	}
}

// admit keeps the cause label to a bounded set of words.
func (m *metrics) admit(cause string) bool {
	if m.causes[cause] {
		return true
	}
	if len(m.causes) >= maxCauses || cause == otherLabel {
		return false
	}
	m.causes[cause] = true
	return true
}
