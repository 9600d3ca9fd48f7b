package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

func TestStagesStopInReverse(t *testing.T) {
	var mu sync.Mutex
	var ended []string
	note := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		ended = append(ended, name)
	}
	s := newStages()
	s.closer("store", func() error { note("store"); return nil })
	for _, name := range []string{"bus", "workers", "sockets"} {
		s.start(name, func(ctx context.Context) error {
			<-ctx.Done()
			note(name)
			return nil
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(s.wait(ctx), s.stop()); err != nil {
		t.Error(err)
	}
	if want := []string{"sockets", "workers", "bus", "store"}; !slices.Equal(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
}

func TestStagesEndTogether(t *testing.T) {
	boom := errors.New("boom")
	for _, result := range []error{boom, nil} {
		s := newStages()
		stopped := false
		s.start("steady", func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil })
		s.start("weak", func(context.Context) error { return result })
		err := s.wait(t.Context())
		if err == nil || result != nil && !errors.Is(err, boom) {
			t.Errorf("wait gives %v", err)
		}
		_ = s.stop()
		if !stopped {
			t.Error("the other part went on")
		}
	}
}
