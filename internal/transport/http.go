package transport

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

const (
	// viewerStart is how long a new viewer waits for a place to start.
	viewerStart = 10 * time.Second
	// viewerSilence is how long a viewer stays when the stream is silent: long
	// enough for a device to restart.
	viewerSilence = time.Minute
	// viewerStall is how long one write to a viewer may take.
	viewerStall = 10 * time.Second
	// viewerChunk is the most that one write carries.
	viewerChunk = 64 << 10
)

// ServeHTTP answers GET /streams/ID.ts with the stream's MPEG-TS, live, from the
// next program association table on. A viewer that cannot keep up is cut off.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutSuffix(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], ".ts")
	if !ok {
		http.Error(w, "streams are at /streams/NAME.ts", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "streams can only be read", http.StatusMethodNotAllowed)
		return
	}
	s.mu.Lock()
	st := s.streams[gk.StreamID(name)]
	s.mu.Unlock()
	if st == nil {
		http.Error(w, fmt.Sprintf("no stream %q here: its device has not connected yet, or it goes by another name", name), http.StatusNotFound)
		return
	}
	if err := needsTS(st.id, st.viewers.carries()); err != nil {
		http.Error(w, err.Error(), http.StatusUnsupportedMediaType)
		return
	}
	w.Header().Set("Content-Type", "video/mp2t")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	s.view(w, r, st)
}

func (s *Service) view(w http.ResponseWriter, r *http.Request, st *stream) {
	out := http.NewResponseController(w)
	// A connection without deadlines, as in tests, is left to its own.
	viewer, err := st.viewers.join(func() { _ = out.SetWriteDeadline(time.Unix(1, 0)) })
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer viewer.leave()
	// A server's limits on whole requests are not meant for one that never ends.
	_ = out.SetReadDeadline(time.Time{})
	buf := make([]byte, viewerChunk)
	for patience := viewerStart; ; patience = viewerSilence {
		n, err := viewer.read(r.Context(), buf, patience)
		if err != nil {
			if patience == viewerStart {
				refuseViewer(w, st.id, err)
			} else if errors.Is(err, errViewerSlow) || errors.Is(err, errStreamCut) {
				// Ending the response as if the stream were over would hide the loss.
				panic(http.ErrAbortHandler)
			}
			return
		}
		_ = out.SetWriteDeadline(time.Now().Add(viewerStall))
		if viewer.over() { // the deadline that was to end it may have been the one before
			panic(http.ErrAbortHandler)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
	}
}

// refuseViewer answers a viewer for whom there was no beginning.
func refuseViewer(w http.ResponseWriter, id gk.StreamID, err error) {
	w.Header().Del("Cache-Control")
	switch {
	case errors.Is(err, errNotTS):
		http.Error(w, fmt.Sprintf("stream %s: its packets do not hold MPEG-TS: set the encoder to MPEG-TS", id), http.StatusUnsupportedMediaType)
	case errors.Is(err, errNoData):
		http.Error(w, fmt.Sprintf("stream %s: no program table came in %v: the device sends nothing, or not MPEG-TS", id, viewerStart), http.StatusGatewayTimeout)
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}
