package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// gate decides who may use the embedded broker and for what.
//
// Services inside the process come as users with passwords that exist only in
// memory. Everybody else comes by MQTT with a certificate of our own CA, and
// must use the certificate's name as MQTT client id: the server itself does not
// bind the two, and a client id decides whose session is taken over. A device's
// certificate must also be the one of its present enrolment: a revoked device,
// and the old identity of one that was enrolled anew, stay outside.
type gate struct {
	server   *server.Server
	users    map[string]user
	services *server.Account
	devices  *server.Account
	open     atomic.Bool
	log      *slog.Logger

	// records asks for a device's enrolment; nil: no device comes in.
	records atomic.Pointer[recordSource]
	mu      sync.Mutex
	known   map[gk.DeviceID]*admitted
}

type recordSource func(context.Context, gk.DeviceID) (bus.DeviceRecord, error)

// admitted is what the gate remembers of a device.
type admitted struct {
	record bus.DeviceRecord // as last told: it holds while nobody can be asked
	cuts   int              // how often its connections were cut
}

// recordTimeout is how long a device that connects may have to wait for its record.
const recordTimeout = 2 * time.Second

type user struct {
	password    string
	permissions *server.Permissions
}

// admit makes a user, with a fresh password, of every role of the service bus.
func (g *gate) admit(transport gk.TransportID) {
	g.users = map[string]user{}
	for _, role := range []bus.Role{bus.RoleKMS, bus.RoleTransport, bus.RoleProcessing, bus.RoleAPI, bus.RoleAudit, bus.RoleBroker} {
		p := bus.PermissionsOf(role, transport)
		permissions := allow(p.Publish, p.Subscribe)
		permissions.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
		g.users[string(role)] = user{password: rand.Text(), permissions: permissions}
	}
}

func (g *gate) password(role bus.Role) string { return g.users[string(role)].password }

// Check implements [server.Authentication].
func (g *gate) Check(c server.ClientAuthentication) bool {
	if !g.open.Load() || c.Kind() != server.CLIENT {
		return false
	}
	info, err := g.server.Connz(&server.ConnzOptions{CID: c.GetID()})
	if err != nil || len(info.Conns) != 1 {
		return false
	}
	switch conn := info.Conns[0]; conn.Type {
	case "mqtt":
		return g.checkMQTT(c, conn.MQTTClient)
	case "nats":
		return g.checkUser(c)
	}
	return false
}

func (g *gate) checkUser(c server.ClientAuthentication) bool {
	u, ok := g.users[c.GetOpts().Username]
	if !ok {
		return false
	}
	if subtle.ConstantTimeCompare([]byte(c.GetOpts().Password), []byte(u.password)) != 1 {
		return false
	}
	c.RegisterUser(&server.User{Username: c.GetOpts().Username, Permissions: u.permissions, Account: g.services})
	return true
}

func (g *gate) checkMQTT(c server.ClientAuthentication, clientID string) bool {
	state := c.GetTLSConnectionState()
	if state == nil || len(state.VerifiedChains) == 0 {
		return false
	}
	role, id, err := identityOf(state.VerifiedChains[0][0])
	if err != nil {
		return false
	}
	var permissions *server.Permissions
	switch role {
	case "device":
		if clientID != id {
			return false
		}
		return g.checkDevice(c, gk.DeviceID(id), state.VerifiedChains[0][0])
	case "processing":
		if clientID != controllerClientID(id) {
			return false
		}
		permissions = controllerPermissions()
	default:
		return false
	}
	c.RegisterUser(&server.User{Username: role + ":" + id, Permissions: permissions, Account: g.devices})
	return true
}

// checkDevice lets a device in whose certificate is that of its enrolment.
func (g *gate) checkDevice(c server.ClientAuthentication, id gk.DeviceID, cert *x509.Certificate) bool {
	cuts := g.cutsOf(id)
	if err := g.enrolled(id, cert); err != nil {
		g.log.Warn("device was not let in at the MQTT broker", "device", id, "error", err)
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known[id].cuts != cuts { // while its record was on the way
		return false
	}
	c.RegisterUser(&server.User{Username: "device:" + string(id), Permissions: devicePermissions(id), Account: g.devices})
	return true
}

func (g *gate) enrolled(id gk.DeviceID, cert *x509.Certificate) error {
	r, err := g.record(id)
	if err != nil {
		return err
	}
	if r.Revoked {
		return errors.New("it is revoked")
	}
	if key, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !key.Equal(ed25519.PublicKey(r.Public)) {
		return errors.New("its certificate is of an earlier enrolment")
	}
	return nil
}

// record asks for a device's record. What was told last holds when nobody answers.
func (g *gate) record(id gk.DeviceID) (bus.DeviceRecord, error) {
	var none bus.DeviceRecord
	ask := g.records.Load()
	if ask == nil {
		return none, errStarting
	}
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	r, err := (*ask)(ctx, id)
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.knows(id)
	switch refusal := (*bus.Refusal)(nil); {
	case err == nil:
		known.record = r
		return r, nil
	case errors.As(err, &refusal) && refusal.Code != bus.CodeUnavailable:
		known.record = none
		return none, err
	case known.record.Device == "":
		return none, fmt.Errorf("its record cannot be had: %w", err)
	}
	return known.record, nil
}

func (g *gate) knows(id gk.DeviceID) *admitted {
	a := g.known[id]
	if a == nil {
		a = &admitted{}
		g.known[id] = a
	}
	return a
}

func (g *gate) cutsOf(id gk.DeviceID) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.knows(id).cuts
}

// forget makes the gate ask anew, also for a device that is coming in just now.
func (g *gate) forget(id gk.DeviceID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.knows(id)
	a.record = bus.DeviceRecord{}
	a.cuts++
}

// controllerClientID is the MQTT client id of a processing service. A colon
// cannot be part of a device's id, so no device can meet this name.
func controllerClientID(id string) string { return "processing:" + id }

// devicePermissions lets a device speak on its own topics and on no others.
func devicePermissions(d gk.DeviceID) *server.Permissions {
	return allow(
		[]string{subjectOf(gkrp.Topic(d, "*", gkrp.Up))},
		[]string{subjectOf(gkrp.Topic(d, "*", gkrp.Down))},
	)
}

// controllerPermissions lets a processing service hear every device and answer.
func controllerPermissions() *server.Permissions {
	return allow(
		[]string{subjectOf(gkrp.Topic("*", "*", gkrp.Down))},
		[]string{subjectOf(gkrp.Topic("*", "*", gkrp.Up))},
	)
}

func allow(publish, subscribe []string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}
}

// subjectOf is the NATS subject that the server maps an MQTT topic to, for
// topics without dots and empty levels.
func subjectOf(topic string) string { return strings.ReplaceAll(topic, "/", ".") }
