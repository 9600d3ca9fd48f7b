package processing

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

const (
	// firstLook is when a service that starts looks whose turn it is, and lookEvery how
	// often it does from then on: one that is on for minutes only must tune as well.
	firstLook = time.Minute
	lookEvery = 10 * time.Minute
	// tryAgain is how long a stream waits that could not be tuned.
	tryAgain = time.Hour
	// contextLate is from when on and until when it is looked for the scores around a
	// label that has none: they are stored with a stretch of chunkTime.
	contextLate, contextGone = chunkTime + time.Minute, time.Hour
)

// tuneByNight runs, until the service ends, a search for every stream once in the
// configured time, each at its own hour. The hours are written down, so that it does not
// matter when the service was started.
func (s *Service) tuneByNight() {
	every := s.cfg.Behaviour.Tuning.Every
	failed := map[gk.StreamID]time.Time{}
	for wait := firstLook; s.cfg.Host.Sleep(s.ctx, wait) == nil; wait = lookEvery {
		var all []*stream
		s.eachStream(func(st *stream) { all = append(all, st) })
		for _, st := range all {
			if s.ctx.Err() != nil {
				return
			}
			now := s.now()
			if at := failed[st.id]; !at.IsZero() && now.Sub(at) < tryAgain {
				continue
			}
			if err := st.turn(now, every); err == nil {
				delete(failed, st.id)
			} else if s.ctx.Err() == nil {
				failed[st.id] = now
				s.log.Info("a stream was not tuned", "stream", st.id, "reason", err)
			}
		}
	}
}

// due is when it is a stream's turn after a time: its own hour, so that not all of them
// come together.
func due(id gk.StreamID, now time.Time, every time.Duration) time.Time {
	at := now.Truncate(every).Add(time.Duration(seedOf(id) % uint64(every)))
	if !at.After(now) {
		at = at.Add(every)
	}
	return at
}

// turn tunes the stream if it is its turn, and keeps the scores around what operators
// reported.
func (st *stream) turn(now time.Time, every time.Duration) error {
	ctx, cancel := st.svc.cfg.Host.WithTimeout(st.svc.ctx, runTimeout+2*callTimeout)
	defer cancel()
	rec, err := st.tuner.view(ctx)
	if err != nil {
		return err
	}
	if rec.wantsContext(now) {
		if err := st.lateContext(ctx, &rec); err != nil {
			return err
		}
	}
	if every <= 0 || !rec.Guard.Auto {
		return nil
	}
	// Where the time between two runs was made shorter, what was written down is too far.
	if next := due(st.id, now, every); rec.Next.IsZero() || rec.Next.After(next) {
		return st.notes(ctx, rec.Searched, next)
	}
	if now.Before(rec.Next) {
		return nil
	}
	f, err := st.search(ctx)
	if err != nil {
		return err
	}
	// A run that ends is no reason to run again, whatever becomes of what it found.
	if err := st.notes(ctx, now, due(st.id, now, every)); err != nil {
		return err
	}
	_, err = st.apply(ctx, f.setting("tuning"), f.record.Guard.Revision)
	return err
}
