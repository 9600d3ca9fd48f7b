package app

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// What a demonstration or a test sees of the services in its own process.

// Hear calls handle with every event of the running services, from a goroutine of
// its own.
func (n *Node) Hear(handle func(gk.Event)) error {
	nc, err := n.connect(bus.RoleAudit)
	if err != nil {
		return err
	}
	n.stages.closer("event listener", func() error { nc.Close(); return nil })
	if _, err := bus.Events.Hear(bus.NewNATS(nc), handle); err != nil {
		return err
	}
	return nc.Flush()
}

// Streams is the transport's word of every stream.
func (n *Node) Streams(now time.Time) []bus.StreamStatus { return n.media.Status(now) }

// Outsiders counts what the transport refused and could give to no stream, by cause.
func (n *Node) Outsiders() map[string]uint64 { return n.media.Outsiders() }

// Latency is the longest wait for a missing packet.
func (n *Node) Latency() time.Duration { return n.cfg.Latency }
