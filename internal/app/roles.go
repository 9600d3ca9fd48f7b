package app

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// The services that a process can run, besides the device agent, which is a
// command of its own. The audit trail runs with key management, which signs it.
const (
	roleKMS        = "kms"
	roleProcessing = "processing"
	roleTransport  = "transport"
	roleAPI        = "api"    // API, joining, and the viewers of a transport in the same process
	roleBroker     = "broker" // our own MQTT broker for devices
)

var allRoles = []string{roleKMS, roleProcessing, roleTransport, roleAPI, roleBroker}

// users are the bus users that a role of a process needs.
var users = map[string][]bus.Role{
	roleKMS:        {bus.RoleKMS, bus.RoleAudit},
	roleProcessing: {bus.RoleProcessing},
	roleTransport:  {bus.RoleTransport},
	roleAPI:        {bus.RoleAPI},
	roleBroker:     {bus.RoleBroker},
}

// runs tells whether this process has a role. Without roles named it has all,
// but the broker where devices use one of somebody else's.
func (c Config) runs(role string) bool {
	if len(c.Roles) == 0 {
		return role != roleBroker || c.MQTTBroker == ""
	}
	return slices.Contains(c.Roles, role)
}

// external tells whether the bus is somebody else's NATS server.
func (c Config) external() bool { return c.Bus != "" }

// checkRoles says what is wrong with roles and bus together.
func (c Config) checkRoles() error {
	for i, r := range c.Roles {
		switch {
		case r == "device":
			return fmt.Errorf("roles: a device is run by gaitkeeper device: choose of %s", strings.Join(allRoles, ", "))
		case !slices.Contains(allRoles, r):
			return fmt.Errorf("roles: %q is none of %s", r, strings.Join(allRoles, ", "))
		case slices.Contains(c.Roles[:i], r):
			return fmt.Errorf("roles: %q stands there twice: once is enough", r)
		}
	}
	if !c.external() {
		for _, r := range allRoles {
			if !c.runs(r) && (r != roleBroker || c.MQTTBroker == "") {
				return fmt.Errorf("roles: without %s nothing works, and with the built-in bus nobody else can run it: leave roles out, or name a NATS cluster with bus", r)
			}
		}
		return nil
	}
	if c.BusReplicas < 0 || c.BusReplicas > 5 || c.BusReplicas > 0 && c.BusReplicas%2 == 0 {
		return fmt.Errorf("bus-replicas: %d copies cannot be kept: choose 1, 3 or 5", c.BusReplicas)
	}
	if c.runs(roleProcessing) && !c.runs(roleBroker) && c.MQTTBroker == "" {
		return fmt.Errorf("mqtt-broker: processing has to know where devices are met: name their broker, or give this process the role %s too", roleBroker)
	}
	if c.runs(roleAPI) && !c.runs(roleBroker) && c.MQTTBroker == "" {
		return fmt.Errorf("mqtt-broker: devices that join have to be told of their broker: name it, or give this process the role %s too", roleBroker)
	}
	_, err := c.busServers()
	return err
}

// busServers are the URLs of the NATS servers: nats://a,b:4223 stands for two.
func (c Config) busServers() ([]string, error) {
	var list []string
	for word := range strings.SplitSeq(c.Bus, ",") {
		word = strings.TrimSpace(word)
		if !strings.Contains(word, "://") {
			word = "nats://" + word
		}
		u, err := url.Parse(word)
		switch {
		case err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "":
			return nil, fmt.Errorf("bus: %q is no address: write nats://HOST[:PORT],HOST[:PORT]", c.Bus)
		case u.Scheme != "nats" && u.Scheme != "tls":
			return nil, fmt.Errorf("bus: scheme %q is not known: write nats://HOST[:PORT]", u.Scheme)
		case u.User != nil:
			return nil, fmt.Errorf("bus: users come by certificate (bus-credentials), not with a password in the URL, where everybody sees it")
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "4222")
		}
		list = append(list, u.Scheme+"://"+u.Host)
	}
	return list, nil
}

// replicas is how many copies of the state the cluster keeps.
func (c Config) replicas() int {
	servers, err := c.busServers()
	switch {
	case c.BusReplicas > 0:
		return c.BusReplicas
	case err == nil && len(servers) >= 3:
		return 3
	}
	return 1
}
