package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/host"
)

// Lease lets one of several instances serve. The holder writes its record anew
// every [LeaseBeat]; an instance that sees the same revision [leaseMissed] times
// in a row, each time in an answer of the store, takes it over by compare-and-set.
// A record under its own name, which it may have left itself when it was killed, it
// watches for [ownMissed] only.
//
// Time is counted in answers and not by clocks: a store that stalls for an
// election, which silences the holder too, takes nothing from him. A holder that
// was stalled itself learns of its replacement at its next write; what it orders
// until then must be fenced otherwise, or bounded by [Lease.Unsure].
type Lease struct {
	host  host.Host
	kv    KV
	key   string
	owner string
	run   string                    // random: tells two processes of one name apart
	rev   uint64                    // of our own record
	sure  atomic.Pointer[time.Time] // when it was certainly ours
}

// Unsure is how long it may be that another instance holds the lease: the time since
// the last write that the store took was sent. It is of any length before there was
// one. A machine that slept counts by the clock of the day, which did not.
func (l *Lease) Unsure() time.Duration {
	at := l.sure.Load()
	if at == nil {
		return math.MaxInt64
	}
	now := l.host.Now()
	return max(now.Sub(*at), now.Round(0).Sub(at.Round(0)))
}

// LeaseBeat is how often a lease is renewed, and looked at.
const LeaseBeat = 500 * time.Millisecond

const (
	leaseMissed  = 4
	ownMissed    = 2               // not 0: a second process of the same name would take the lease from the first, and he from it
	leaseTimeout = 2 * time.Second // for one answer of the store
)

// ErrLeaseLost means that another instance holds the lease.
var ErrLeaseLost = errors.New("another instance has taken the lease over")

type leaseRecord struct {
	Owner string `cbor:"1,keyasint"` // empty: given back
	Beat  uint64 `cbor:"2,keyasint"`
	Run   string `cbor:"3,keyasint"`
}

// NewLease names a lease: key in kv, to be held by owner.
func NewLease(kv KV, key, owner string) *Lease { return NewLeaseOn(host.Real{}, kv, key, owner) }

// NewLeaseOn is [NewLease] on the time of a host, which may be simulated.
func NewLeaseOn(h host.Host, kv KV, key, owner string) *Lease {
	return &Lease{host: h, kv: kv, key: key, owner: owner, run: rand.Text()}
}

// Acquire waits until the lease is held, or ctx ends. waiting is called once,
// with the holder's name, if it has to wait; it may be nil. An instance that was
// killed and restarted takes its own lease up sooner than another's.
func (l *Lease) Acquire(ctx context.Context, waiting func(holder string)) error {
	var seen uint64
	missed := 0
	for {
		e, rec, err := l.read(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
			l.rev, err = l.write(ctx, 0, leaseRecord{Owner: l.owner, Run: l.run})
		case err != nil:
		default:
			if e.Revision != seen {
				seen, missed = e.Revision, 0
			}
			if rec.Owner == "" || rec.Owner == l.owner && missed >= ownMissed || missed >= leaseMissed {
				l.rev, err = l.write(ctx, e.Revision, leaseRecord{Owner: l.owner, Run: l.run, Beat: rec.Beat + 1})
				break
			}
			missed++
			err = ErrConflict
			if waiting != nil {
				waiting(rec.Owner)
				waiting = nil
			}
		}
		if err == nil {
			return nil
		}
		if err := l.host.Sleep(ctx, LeaseBeat); err != nil {
			return err
		}
	}
}

// Hold renews the lease until ctx ends, and then gives it back; or until another
// instance has it, with [ErrLeaseLost]. A store that does not answer is waited for.
func (l *Lease) Hold(ctx context.Context) error {
	for beat := uint64(1); ; beat++ {
		if l.host.Sleep(ctx, LeaseBeat) != nil {
			last, cancel := l.host.WithTimeout(context.WithoutCancel(ctx), leaseTimeout)
			defer cancel()
			_, _ = l.write(last, l.rev, leaseRecord{Beat: beat}) // if it fails, the lease runs out
			return nil
		}
		rev, err := l.write(ctx, l.rev, leaseRecord{Owner: l.owner, Run: l.run, Beat: beat})
		if err == nil {
			l.rev = rev
			continue
		}
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrExists) {
			continue
		}
		e, rec, err := l.read(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
			l.rev = 0 // the store was restored from a backup
		case err != nil:
		case rec.Run != l.run:
			if rec.Owner == l.owner {
				return fmt.Errorf("%w: a second process called %s: give each a name of its own with --id", ErrLeaseLost, rec.Owner)
			}
			return fmt.Errorf("%w: %s", ErrLeaseLost, rec.Owner)
		default:
			l.rev = e.Revision // our own write, whose answer was lost
		}
	}
}

func (l *Lease) read(ctx context.Context) (Entry, leaseRecord, error) {
	ctx, cancel := l.host.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	var rec leaseRecord
	e, err := l.kv.Get(ctx, l.key)
	if err == nil {
		err = cbor.Unmarshal(e.Value, &rec)
	}
	return e, rec, err
}

func (l *Lease) write(ctx context.Context, rev uint64, rec leaseRecord) (uint64, error) {
	ctx, cancel := l.host.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	b, err := cbor.Marshal(rec)
	if err != nil {
		return 0, err
	}
	sent := l.host.Now()
	if rev == 0 {
		rev, err = l.kv.Create(ctx, l.key, b)
	} else {
		rev, err = l.kv.Update(ctx, l.key, b, rev)
	}
	if err == nil {
		l.sure.Store(&sent)
	}
	return rev, err
}
