package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// guard is what every request passes: limits, and the refusal of requests that
// a browser was tricked into sending to this machine (DNS rebinding).
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Local && !localName(r.Host) {
			reply(w, http.StatusForbidden, problem{Code: bus.CodeUnauthorized, Text: "this listener answers only as localhost: use http://127.0.0.1, or let it listen beyond loopback with --listen"})
			return
		}
		limitBody(w, r)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// ownSite refuses what changes something and comes from a page of another site: a
// browser that was given the token as a password sends it along with that too.
func ownSite(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusForbidden, problem{Code: bus.CodeUnauthorized, Text: "this request comes from another site's page: send it from a program or from the server's own pages"})
	}))
	return p.Handler(next)
}

// limitBody bounds size and time of what a request sends.
func limitBody(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	// A connection that knows no deadlines has no slow peer either.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
}

func localName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// operator lets a request pass that has the bearer token.
func (s *Server) operator(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if !s.authorized(r) {
			s.refuse(w)
			return
		}
		next(w, r)
	})
}

// viewer lets everybody on this machine pass; beyond it, the token is needed.
func (s *Server) viewer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.cfg.Local && !s.authorized(r) {
			s.refuse(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) refuse(w http.ResponseWriter) {
	w.Header().Add("WWW-Authenticate", "Bearer")
	w.Header().Add("WWW-Authenticate", `Basic realm="gaitkeeper"`)
	reply(w, http.StatusUnauthorized, problem{Code: bus.CodeUnauthorized, Text: "send the token of the file api-token in the server's data directory: Authorization: Bearer TOKEN"})
}

// authorized looks for the token as bearer, or as the password of HTTP basic
// authentication, which is what players can send. Comparing hashes makes the
// time independent of what was sent.
func (s *Server) authorized(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		if _, token, ok = r.BasicAuth(); !ok {
			return false
		}
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(hash[:], s.cfg.TokenHash[:]) == 1
}
