package device

import (
	"context"
	"slices"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestDetachedSendsToEveryTransport, as the agent does.
func TestDetachedSendsToEveryTransport(t *testing.T) {
	w := newWorld(t)
	courier := bus.NewMemory().Courier()
	t.Cleanup(courier.Close)
	var to []string
	identity := w.identity(t)
	d, err := NewDetached(Config{Identity: identity}, StreamConfig{ID: identity.Streams[0], Source: &brokenSource{}},
		gkrp.Payload{Kind: gkrp.PayloadMP2T}, 1, 0, courier, func(address string, _ [][]byte) { to = append(to, address) })
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Begin(); err != nil {
		t.Fatal(err)
	}
	all := []string{"a:1", "b:1", "c:1"}
	d.x.start(context.Background(), gkrp.Start{SSRC: 7, Transports: all})
	d.settle()
	for _, out := range d.x.link.outs {
		if _, err := out.Send(nil); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Sort(to); !slices.Equal(to, all) {
		t.Errorf("packets go to %v of %v", to, all)
	}
}
