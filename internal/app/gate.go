package app

import (
	"crypto/rand"
	"crypto/subtle"
	"strings"
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
// bind the two, and a client id decides whose session is taken over.
type gate struct {
	server   *server.Server
	users    map[string]user
	services *server.Account
	devices  *server.Account
	open     atomic.Bool
}

type user struct {
	password    string
	permissions *server.Permissions
}

// admit makes a user, with a fresh password, of every role of the service bus.
func (g *gate) admit(transport gk.TransportID) {
	g.users = map[string]user{}
	for _, role := range []bus.Role{bus.RoleKMS, bus.RoleTransport, bus.RoleProcessing, bus.RoleAPI, bus.RoleAudit, bus.RoleAssembly} {
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
		permissions = devicePermissions(gk.DeviceID(id))
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
