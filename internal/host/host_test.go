package host

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestRealWaitsAndGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Real
		began := h.Now()
		if err := h.Sleep(t.Context(), time.Second); err != nil || h.Now().Sub(began) != time.Second {
			t.Errorf("slept %v: %v", h.Now().Sub(began), err)
		}
		ctx, cancel := h.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("sleep beyond the deadline: %v", err)
		}
		token := make(chan struct{}, 1)
		if err := h.Acquire(t.Context(), token); err != nil {
			t.Error(err)
		}
		if err := h.Acquire(ctx, token); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a token that is taken: %v", err)
		}
		done := make(chan error)
		h.Go(func() { done <- h.Acquire(t.Context(), token) })
		<-token
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
