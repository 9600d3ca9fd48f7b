package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"golang.org/x/time/rate"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A join costs signatures and storage, and anybody may ask: so few are enough.
const (
	joinsPerSecond     = 10
	joinBurst          = 20
	joinsPerSecondHost = 1
	joinBurstHost      = 5
	maxJoinHosts       = 4096
)

// JoinConfig says how new devices join.
type JoinConfig struct {
	// TLS has the certificate of this server, from the CA whose fingerprint is
	// in the join token.
	TLS *tls.Config
	// Broker is where the MQTT broker is, told to the device: host:port of our
	// own, or the URL of somebody else's with the certificates (DER) of its CA;
	// none: the device is to trust its system's.
	Broker   string
	BrokerCA [][]byte
	Log      *slog.Logger
}

// joinRequest is the body of POST /v1/join.
type joinRequest struct {
	Device string `json:"device"`
	Secret []byte `json:"secret"` // of the join token
	CSR    []byte `json:"csr"`    // PKCS #10, DER
}

// joinAnswer is what the device keeps.
type joinAnswer struct {
	bus.JoinReply
	Broker   string   `json:"broker"`
	BrokerCA [][]byte `json:"broker_ca,omitempty"`
}

// RunJoin serves POST /v1/join over TLS on ln until ctx ends.
func RunJoin(ctx context.Context, cfg JoinConfig, conn bus.Conn, ln net.Listener) error {
	return serve(ctx, tls.NewListener(ln, cfg.TLS), joinHandler(cfg, conn), cfg.Log)
}

func joinHandler(cfg JoinConfig, conn bus.Conn) http.Handler {
	s := &Server{cfg: Config{Log: cfg.Log}, conn: conn}
	limit := newLimiter()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/join", func(w http.ResponseWriter, r *http.Request) {
		limitBody(w, r)
		w.Header().Set("Cache-Control", "no-store")
		if !limit.allow(r.RemoteAddr) {
			w.Header().Set("Retry-After", "1")
			reply(w, http.StatusTooManyRequests, problem{Code: bus.CodeUnavailable, Text: "too many devices join at once: try again in a second"})
			return
		}
		var body joinRequest
		if err := read(r, &body); err != nil {
			s.fail(w, r, err)
			return
		}
		device, err := gk.ParseDeviceID(body.Device)
		if err != nil {
			s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "%v", err))
			return
		}
		ask, cancel := context.WithTimeout(r.Context(), askTimeout)
		defer cancel()
		// Beyond this line nobody needs the secret: what passes the bus does not
		// join by itself, because a secret that has this hash is asked for here.
		hash := sha256.Sum256(body.Secret)
		clear(body.Secret)
		rep, err := bus.KMSJoin.Do(ask, conn, bus.JoinRequest{Device: device, Hash: hash[:], CSR: body.CSR})
		if err != nil {
			s.fail(w, r, err)
			return
		}
		reply(w, http.StatusOK, joinAnswer{JoinReply: rep, Broker: cfg.Broker, BrokerCA: cfg.BrokerCA})
	})
	return mux
}

// limiter bounds joins in all and from each host.
type limiter struct {
	all   *rate.Limiter
	mu    sync.Mutex
	hosts map[string]*rate.Limiter
}

func newLimiter() *limiter {
	return &limiter{all: rate.NewLimiter(joinsPerSecond, joinBurst), hosts: map[string]*rate.Limiter{}}
}

// allow asks the host's budget first, so that one host cannot spend everybody's.
func (l *limiter) allow(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	l.mu.Lock()
	if len(l.hosts) >= maxJoinHosts {
		clear(l.hosts)
	}
	own := l.hosts[host]
	if own == nil {
		own = rate.NewLimiter(joinsPerSecondHost, joinBurstHost)
		l.hosts[host] = own
	}
	l.mu.Unlock()
	return own.Allow() && l.all.Allow()
}
