package app

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// stages run the parts of a process. They are started in the order in which
// they need one another and stopped in the reverse order, each only when the
// one after it has ended: first the doors that people and devices come through,
// then the services, then the bus and what is stored behind it.
type stages struct {
	list  []*stage
	ended chan error // of the first stage that ended before it was told to
}

type stage struct {
	name  string
	stop  func()
	group errgroup.Group
}

func newStages() *stages { return &stages{ended: make(chan error, 1)} }

// start runs a part in a goroutine until stop; a part that ends by itself ends
// the process.
func (s *stages) start(name string, run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	st := &stage{name: name, stop: cancel}
	st.group.Go(func() error {
		err := run(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		if ctx.Err() == nil {
			if err == nil {
				err = fmt.Errorf("%s ended by itself", name)
			}
			select {
			case s.ended <- err:
			default:
			}
		}
		return err
	})
	s.list = append(s.list, st)
}

// closer registers a part that has nothing to run but something to close.
func (s *stages) closer(name string, closeIt func() error) {
	st := &stage{name: name}
	done := make(chan struct{})
	st.stop = sync.OnceFunc(func() { close(done) })
	st.group.Go(func() error {
		<-done
		if err := closeIt(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	s.list = append(s.list, st)
}

// wait returns when ctx ends or a part has ended by itself, with that part's error.
func (s *stages) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.ended:
		return err
	}
}

// stop ends all parts, the last started first, and gives their errors.
func (s *stages) stop() error {
	var errs []error
	for i := len(s.list) - 1; i >= 0; i-- {
		s.list[i].stop()
		errs = append(errs, s.list[i].group.Wait())
	}
	s.list = nil
	return errors.Join(errs...)
}
