package processing

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// siteWatch raises alerts about what belongs to no stream. They are of class noise:
// whoever can send a packet makes them, so nothing follows but one alert, and the
// next a minute after it at the earliest. They are not stored.
type siteWatch struct {
	mu     sync.Mutex
	alerts alertBook
	noisy  time.Time
}

func newSiteWatch() *siteWatch { return &siteWatch{alerts: newAlertBook(bus.SiteAlerts)} }

// hear takes what a transport counted in about a second.
func (w *siteWatch) hear(now time.Time, u bus.Outsiders, response bus.Response) []gk.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var total uint64
	var causes []string
	for cause, n := range u.Dropped {
		total += n
		causes = append(causes, fmt.Sprintf("%d %s", n, cause))
	}
	slices.Sort(causes)
	open := w.alerts.get(bus.ClassNoise)
	if total >= noisyPackets && response != bus.RespondShow && (open != nil || w.noisy.IsZero() || now.Sub(w.noisy) >= noiseEvery) {
		if open == nil {
			w.noisy = now
		}
		w.alerts.raise(now, bus.Alert{
			Class: bus.ClassNoise, Kind: "strangers", Score: math.Log10(float64(total)) / math.Log10(noisyPackets), Response: bus.RespondAlert, Done: bus.DoneAlerted,
			Evidence: []string{fmt.Sprintf("%s: in one second %d packets that belong to no stream (%s): dropped, nothing else follows", u.Transport, total, strings.Join(causes, ", "))},
		})
	}
	return w.tick(now)
}

// tick ends an alert when it is quiet, and gives what is to be told.
func (w *siteWatch) tick(now time.Time) []gk.Event {
	if w.alerts.quiet(now, bus.ClassNoise, noiseQuiet) {
		w.alerts.close(now, bus.ClassNoise, bus.OutcomeCalm)
	}
	told := w.alerts.told
	w.alerts.told = nil
	return told
}

// transportOutsiders takes a transport's news of packets that belong to no stream.
func (s *Service) transportOutsiders(u bus.Outsiders) {
	response, ok := s.cfg.Behaviour.Responses[bus.ClassNoise]
	if !ok {
		response = bus.RespondAlert
	}
	for _, e := range s.strangers.hear(s.now(), u, response) {
		s.tell(e)
	}
}

// siteTick lets time pass for the site's alerts.
func (s *Service) siteTick() {
	s.strangers.mu.Lock()
	told := s.strangers.tick(s.now())
	s.strangers.mu.Unlock()
	for _, e := range told {
		s.tell(e)
	}
}

// siteAlerts gives the site's alerts.
func (s *Service) siteAlerts() []bus.Alert {
	s.strangers.mu.Lock()
	defer s.strangers.mu.Unlock()
	return cloneAlerts(s.strangers.alerts.all)
}
