package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

const (
	feedBuffer    = 256              // events that a listener may lag behind
	feedListeners = 256              // at once
	feedHeartbeat = 15 * time.Second // so that a dead connection is noticed
	feedPatience  = 5 * time.Second  // for one write
)

// fanout hands every event to every listener of the feed. A listener that does
// not keep up is cut off, never waited for.
type fanout struct {
	mu        sync.Mutex
	listeners map[chan gk.Event]struct{}
}

func newFanout() *fanout { return &fanout{listeners: map[chan gk.Event]struct{}{}} }

func (f *fanout) add() (chan gk.Event, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.listeners) >= feedListeners {
		return nil, false
	}
	c := make(chan gk.Event, feedBuffer)
	f.listeners[c] = struct{}{}
	return c, true
}

// remove ends a listener; ending it twice does nothing.
func (f *fanout) remove(c chan gk.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.listeners[c]; ok {
		delete(f.listeners, c)
		close(c)
	}
}

func (f *fanout) send(e gk.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.listeners {
		select {
		case c <- e:
		default:
			delete(f.listeners, c)
			close(c)
		}
	}
}

func (s *Server) hear(e gk.Event) {
	s.metrics.event(e)
	s.events.send(e)
}

// feed sends events as they happen (server-sent events), all of them or those
// of the stream that ?stream= names.
func (s *Server) feed(w http.ResponseWriter, r *http.Request) {
	stream := gk.StreamID(r.URL.Query().Get("stream"))
	events, ok := s.events.add()
	if !ok {
		s.fail(w, r, bus.Refuse(bus.CodeUnavailable, "%d listeners are the limit", feedListeners))
		return
	}
	defer s.events.remove(events)

	out := http.NewResponseController(w)
	// The limit on the request's body would end the feed as well.
	_ = out.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	send := func(text string) error {
		// Deadlines are refused only by test recorders, which cannot stall.
		_ = out.SetWriteDeadline(time.Now().Add(feedPatience))
		if _, err := fmt.Fprint(w, text); err != nil {
			return err
		}
		return out.Flush()
	}
	if send(": events follow\n\n") != nil {
		return
	}
	beat := time.NewTicker(feedHeartbeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			if send(": still here\n\n") != nil {
				return
			}
		case e, open := <-events:
			if !open {
				return
			}
			if stream != "" && e.Stream != stream {
				continue
			}
			b, err := json.Marshal(e)
			if err != nil || send(fmt.Sprintf("event: %s\ndata: %s\n\n", e.Kind, b)) != nil {
				return
			}
		}
	}
}
