package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// leastNATS is the first version that has what the state needs: a time to live
// for single messages.
const leastNATS = "2.11.0"

// bus logs in at every NATS server as each role of this process. The servers
// allow that beside the process itself.
func (d *doctor) bus(ctx context.Context) {
	const check = "bus"
	if !d.cfg.external() {
		return
	}
	servers, err := d.cfg.busServers()
	if err != nil {
		return // told with the settings
	}
	reached := 0
	for _, server := range servers {
		for _, role := range allRoles {
			if !d.cfg.runs(role) {
				continue
			}
			for _, user := range users[role] {
				if err := d.greet(ctx, server, user); err != nil {
					d.fail(check, fmt.Sprintf("%s as %s: %v", server, user, err), mendBus(err))
					break
				}
			}
		}
		if !d.failed(check) {
			reached++
		}
	}
	switch {
	case d.failed(check):
	case len(servers) > 1 && len(servers) < 3:
		d.warn(check, "two servers are no better than one: one of two is no majority", "name one, or three")
	default:
		d.fine(check, fmt.Sprintf("%d of %d servers know every role of this process", reached, len(servers)))
	}
}

func mendBus(err error) string {
	if why := refusedByBus(err); why != "" {
		return why
	}
	if strings.Contains(err.Error(), "bus-credentials") {
		return "copy the directory that bus-setup made for this process"
	}
	return "start the server, open its port to this machine, or mend --bus"
}

// greet connects to one server as one user, and asks for what the role needs.
func (d *doctor) greet(ctx context.Context, server string, role bus.Role) error {
	secure, err := d.cfg.busTLS(role)
	if err != nil {
		return err
	}
	nc, err := nats.Connect(server, nats.Name("doctor"), nats.Secure(secure), bus.InboxOption(role), nats.NoReconnect(), nats.Timeout(doctorTimeout), nats.IgnoreDiscoveredServers())
	if err != nil {
		return err
	}
	defer nc.Close()
	if older(nc.ConnectedServerVersion(), leastNATS) {
		return fmt.Errorf("nats-server %s is too old: install %s or later", nc.ConnectedServerVersion(), leastNATS)
	}
	if len(bus.PermissionsOf(role, d.cfg.transportID()).Buckets) == 0 {
		return nil
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	if _, err := js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("JetStream does not answer: %w", err)
	}
	return nil
}

// older compares versions of three numbers.
func older(a, b string) bool {
	var x, y [3]int
	_, _ = fmt.Sscanf(a, "%d.%d.%d", &x[0], &x[1], &x[2]) // what does not read counts as 0
	_, _ = fmt.Sscanf(b, "%d.%d.%d", &y[0], &y[1], &y[2])
	for i := range x {
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return false
}

// earliest is a time that no clock of a running machine can be before.
var earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
