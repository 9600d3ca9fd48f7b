package bus

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestStalledBrokerHoldsNobodyUp: a broker stops reading. Whoever sends goes on at once,
// what does not fit is refused, and what was taken goes out in order when the broker
// reads again, to the last.
func TestStalledBrokerHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := make(chan struct{})
		var sent []string
		o := newOutbox(func(topic string, payload []byte) {
			<-stalled
			sent = append(sent, topic+" "+string(payload))
		})
		began := time.Now()
		var want []string
		refused := 0
		for i := range 2 * maxOutbox {
			payload := fmt.Sprint(i)
			switch err := o.send("t", []byte(payload)); {
			case err == nil:
				want = append(want, "t "+payload)
			case errors.Is(err, ErrBehind):
				refused++
			default:
				t.Fatal(err)
			}
		}
		if !time.Now().Equal(began) || len(want) < maxOutbox || refused < maxOutbox-1 {
			t.Errorf("%d taken and %d refused in %v", len(want), refused, time.Since(began))
		}
		time.AfterFunc(50*time.Millisecond, func() { close(stalled) })
		o.close(100 * time.Millisecond)
		if !slices.Equal(sent, want) {
			t.Errorf("%d of %d went out", len(sent), len(want))
		}
	})
}

// TestOutboxOfADeadBrokerCloses: the broker never reads again.
func TestOutboxOfADeadBrokerCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		o := newOutbox(func(string, []byte) { <-dead })
		_ = o.send("t", nil)
		o.close(100 * time.Millisecond)
		close(dead)
		<-o.done
		o.close(100 * time.Millisecond)
	})
}
