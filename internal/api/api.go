// Package api is what people and their programs talk to: REST, server-sent
// events, metrics, health, the viewers' door to decrypted streams, and the
// separate endpoint where new devices join. It holds no key and no state; it
// asks the services over the bus.
package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Config says what a [Server] offers.
type Config struct {
	// TokenHash is the SHA-256 of the bearer token. The token itself is in a
	// file that only its owner reads.
	TokenHash [sha256.Size]byte
	// Local is set when the listener is on loopback: viewers, metrics and
	// health then need no token, and only requests that were meant for this
	// machine are answered.
	Local bool
	// JoinAddress is the host:port of the join endpoint, for join tokens.
	JoinAddress string
	// TokenLife is how long a join token lasts when the request does not say.
	TokenLife time.Duration
	// Viewer serves /streams/{id}.ts; nil where this process has no transport.
	Viewer http.Handler
	// Version is told by /v1/version and the metrics.
	Version string
	Log     *slog.Logger
}

const (
	headerTimeout   = 5 * time.Second
	bodyTimeout     = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 2 * time.Second
	askTimeout      = 5 * time.Second  // for an answer from a service
	rotateTimeout   = 15 * time.Second // for a rotation that the caller waits for
	disarmTimeout   = 8 * time.Second  // for all transports to disarm
	maxHeader       = 16 << 10
	maxBody         = 64 << 10
)

// Server answers for the whole system over HTTP.
type Server struct {
	cfg     Config
	conn    bus.Conn
	metrics *metrics
	events  *fanout
	subs    []bus.Subscription

	readiness readiness
}

// New subscribes to what the metrics and the event feed need. Close the server
// by ending Run's context.
func New(cfg Config, conn bus.Conn) (*Server, error) {
	s := &Server{cfg: cfg, conn: conn, metrics: newMetrics(cfg.Version), events: newFanout()}
	events, err := bus.Events.Hear(conn, s.hear)
	if err != nil {
		return nil, err
	}
	status, err := bus.TransportStatus.Hear(conn, s.metrics.status, nil) // processing tells of liars
	if err != nil {
		return nil, errors.Join(err, events.Close())
	}
	scores, err := bus.ProcessingScores.Hear(conn, s.metrics.scores.hear)
	if err != nil {
		return nil, errors.Join(err, events.Close(), status.Close())
	}
	s.subs = []bus.Subscription{events, status, scores}
	return s, nil
}

// Handler gives all routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", s.viewer(s.metrics.handler()))
	mux.Handle("GET /v1/version", s.operator(s.version))
	mux.Handle("GET /v1/streams", s.operator(s.streams))
	mux.Handle("GET /v1/streams/{id}", s.operator(s.stream))
	mux.Handle("GET /v1/streams/{id}/keys", s.operator(s.keys))
	mux.Handle("POST /v1/streams/{id}/rotate", s.operator(s.rotate))
	mux.Handle("GET /v1/streams/{id}/explain", s.operator(s.explain))
	mux.Handle("GET /v1/streams/{id}/profile", s.operator(s.profile))
	mux.Handle("POST /v1/streams/{id}/profile", s.operator(s.changeProfile))
	mux.Handle("POST /v1/streams/{id}/planned-change", s.operator(s.plannedChange))
	mux.Handle("GET /v1/alerts", s.operator(s.alerts))
	mux.Handle("GET /v1/alerts/{id}", s.operator(s.alert))
	mux.Handle("GET /v1/alerts/{id}/windows", s.operator(s.alertWindows))
	mux.Handle("POST /v1/alerts/{id}/feedback", s.operator(s.feedback))
	mux.Handle("POST /v1/streams/{id}/missed", s.operator(s.missed))
	mux.Handle("GET /v1/streams/{id}/tuning", s.operator(s.tuning))
	mux.Handle("POST /v1/streams/{id}/tuning", s.operator(s.changeTuning))
	mux.Handle("POST /v1/tuning", s.operator(s.fleetTuning))
	mux.Handle("POST /v1/enroll", s.operator(s.enroll))
	mux.Handle("GET /v1/devices", s.operator(s.devices))
	mux.Handle("POST /v1/devices/{id}/revoke", s.operator(s.revoke))
	mux.Handle("GET /v1/events", s.operator(s.feed))
	if s.cfg.Viewer != nil {
		mux.Handle("GET /streams/", s.viewer(s.cfg.Viewer))
	}
	return s.guard(ownSite(mux))
}

// Run serves on ln until ctx ends; then it lets requests finish for a moment
// and closes what remains.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	defer func() {
		for _, sub := range s.subs {
			_ = sub.Close()
		}
	}()
	return serve(ctx, ln, s.Handler(), s.cfg.Log)
}

// serve runs an HTTP server whose requests end with ctx.
func serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	group, ended := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ended.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(limit) != nil {
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}
