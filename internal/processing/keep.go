package processing

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// What is kept of a stream's behaviour: the profile and the alerts, which the key
// management service encrypts. First tokens of their keys in the store.
const (
	profileToken = "profile"
	alertsToken  = "alerts"
)

// envelope is what stands in the store: the content, and the fencing term of the
// instance that wrote it.
type envelope struct {
	Term    uint64 `cbor:"1,keyasint"`
	Version uint64 `cbor:"2,keyasint"`
	Content []byte `cbor:"3,keyasint"`
}

// keepMode keeps times to the nanosecond.
var keepMode = func() cbor.EncMode {
	m, err := cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode()
	if err != nil {
		panic(err) // fixed options; a mistake shows at the first start
	}
	return m
}()

// maxProfile bounds an unpacked profile, in bytes.
const maxProfile = 8 << 20

// packProfile writes a profile as compressed CBOR.
func packProfile(p profileRecord) ([]byte, error) {
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(keepMode.NewEncoder(z).Encode(p), z.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unpackProfile reads what packProfile wrote. The error says why the profile is not
// to be believed.
func unpackProfile(b []byte) (p profileRecord, err error) {
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxProfile+1))
	if err != nil || len(plain) > maxProfile {
		return p, fmt.Errorf("the stored profile does not unpack: %v", err)
	}
	if err := cbor.Unmarshal(plain, &p); err != nil {
		return profileRecord{}, fmt.Errorf("the stored profile does not read: %v", err)
	}
	if err := p.check(); err != nil {
		return profileRecord{}, err
	}
	return p, nil
}

// errRefused means that what is stored is not what was written.
var errRefused = errors.New("refused")

// load reads what is kept of the stream, until it can be read, and gives it to the
// stream's goroutine.
func (st *stream) load() {
	st.svc.beside(st.loadTuning)
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		var a alertsRecord
		var p profileRecord
		why := ""
		err := st.svc.keeps.pass(st.svc.ctx, st.svc, st.id, func() (err error) {
			if a, why, err = st.keptAlerts(); err == nil {
				p, err = st.keptProfile()
			}
			return err
		})
		if err == nil || errors.Is(err, errRefused) {
			if why != "" {
				if err := st.eraseReels(st.svc.ctx); err != nil {
					st.svc.log.Warn("windows around alerts that are not known any more were not erased", "stream", st.id, "error", err)
				}
			}
			st.post(func() {
				refused := ""
				if err != nil {
					refused = err.Error()
				}
				st.behaviour.alerts.recount(a.Counted)
				st.behaviour.loaded(st.svc.now(), p, refused, a)
				st.react()
			})
			if why != "" {
				st.svc.log.Error("the stored alerts are not believed; the audit trail has them", "stream", st.id, "error", why)
				st.svc.tell(gk.Event{Kind: gk.EventAlertsRefused, Stream: st.id, Device: st.device, Detail: map[string]string{"why": why}})
			}
			return
		}
		if st.svc.ctx.Err() != nil {
			return
		}
		st.svc.log.Warn("profile and alerts were not read; trying again", "stream", st.id, "error", err)
		if st.svc.cfg.Host.Sleep(st.svc.ctx, wait) != nil {
			return
		}
	}
}

// keptProfile reads the profile. One that is refused is an error that says why; of one
// that is authentic and cannot be used there is the reason alone.
func (st *stream) keptProfile() (p profileRecord, err error) {
	ctx, cancel := st.svc.cfg.Host.WithTimeout(st.svc.ctx, callTimeout)
	defer cancel()
	e, err := st.profileFile.read(ctx)
	if err != nil {
		return p, err
	}
	if len(e.Content) == 0 {
		_, refused, err := st.svc.removed(ctx, st.place(0))
		if refused != "" {
			err = fmt.Errorf("%w: %s", errRefused, refused)
		}
		return p, err
	}
	rep, err := bus.KMSUnseal.Do(ctx, st.svc.conn, bus.UnsealRequest{Place: st.place(e.Version), Sealed: e.Content})
	if bus.CodeOf(err) == bus.CodeUnauthorized {
		return profileRecord{}, fmt.Errorf("%w: %v", errRefused, err)
	}
	if err != nil {
		return p, err
	}
	if p, err = unpackProfile(rep.Content); err != nil {
		// It opened, so that nobody else wrote it: what reads otherwise is another
		// version of this program.
		why := fmt.Sprintf("the stored profile is of another version of this program, and is learned anew: %v", err)
		st.svc.log.Warn("the stored profile is of another version of this program, and is learned anew", "stream", st.id, "error", err)
		return profileRecord{Version: e.Version, Why: why}, nil
	}
	return p, nil
}

// removed tells of a record that is not there whether it was: the key management
// service, whose store is another, knows the newest version that was in use.
func (s *Service) removed(ctx context.Context, p bus.SealPlace) (newest uint64, refused string, err error) {
	have, err := bus.KMSSeal.Do(ctx, s.conn, bus.SealRequest{Place: p})
	if err == nil && have.Newest > 0 {
		refused = fmt.Sprintf("%s of stream %s: it is gone, but version %d was in use", p.Kind, p.Stream, have.Newest)
	}
	return have.Newest, refused, err
}

func (st *stream) place(version uint64) bus.SealPlace {
	return bus.SealPlace{Kind: bus.SealedProfile, Stream: st.id, Version: version}
}

// saveProfile has the profile encrypted and written. It is opened again when it is
// there: from then on, no older one does.
func (st *stream) saveProfile() {
	p := st.behaviour.profile
	st.profileFile.write(func(ctx context.Context) (envelope, error) {
		sealed, err := st.sealProfile(ctx, &p)
		return envelope{Version: p.Version, Content: sealed}, err
	}, func(ctx context.Context, e envelope) error {
		_, err := bus.KMSUnseal.Do(ctx, st.svc.conn, bus.UnsealRequest{Place: st.place(e.Version), Sealed: e.Content})
		return err
	})
}

// sealProfile has a profile encrypted. One that would not open, because an instance
// before stored a later version, gets the version after that.
func (st *stream) sealProfile(ctx context.Context, p *profileRecord) ([]byte, error) {
	for {
		b, err := packProfile(*p)
		if err != nil {
			return nil, err
		}
		if len(b) > bus.MaxSealed && p.Before != nil {
			p.Before = nil // too much to keep both
			continue
		}
		rep, err := bus.KMSSeal.Do(ctx, st.svc.conn, bus.SealRequest{Place: st.place(p.Version), Content: b})
		if err != nil || rep.Newest < p.Version {
			return rep.Sealed, err
		}
		p.Version = rep.Newest + 1
		version := p.Version
		st.post(func() { st.behaviour.profile.Version = max(st.behaviour.profile.Version, version) })
	}
}

// file is one record of a stream that is written newest only, by compare-and-set.
// An instance with a later fencing term keeps it.
type file struct {
	svc    *Service
	stream gk.StreamID
	key    string

	mu   sync.Mutex
	next *writing
	busy bool

	revision uint64 // touched by read and drain alone, which do not overlap
}

// writing is content that is made when it is its turn, and what is done when it is
// written.
type writing struct {
	make    func(context.Context) (envelope, error)
	written func(context.Context, envelope) error // may be nil
}

func newFile(svc *Service, stream gk.StreamID, token string) *file {
	return &file{svc: svc, stream: stream, key: token + "." + string(stream)}
}

// read gives the record, empty where there is none. One that does not decode is
// given as content that nobody sealed.
func (f *file) read(ctx context.Context) (envelope, error) {
	e, err := f.svc.records.Get(ctx, f.key)
	if errors.Is(err, store.ErrNotFound) {
		f.revision = 0
		return envelope{}, nil
	}
	if err != nil {
		return envelope{}, err
	}
	f.revision = e.Revision
	var v envelope
	if cbor.Unmarshal(e.Value, &v) != nil || len(v.Content) == 0 {
		return envelope{Content: []byte{0}}, nil
	}
	return v, nil
}

// write has what make gives written, unless something newer comes first, and calls
// written then.
func (f *file) write(make func(context.Context) (envelope, error), written func(context.Context, envelope) error) {
	f.mu.Lock()
	f.next = &writing{make, written}
	busy := f.busy
	f.busy = true
	f.mu.Unlock()
	if !busy {
		f.svc.beside(f.drain)
	}
}

func (f *file) take() *writing {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.next
	f.next = nil
	f.busy = next != nil
	return next
}

func (f *file) drain() {
	for next := f.take(); next != nil; next = f.take() {
		f.store(next)
	}
}

func (f *file) store(next *writing) {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		err := f.svc.keeps.pass(f.svc.ctx, f.svc, f.stream, func() error { return f.put(next) })
		if err == nil || f.svc.ctx.Err() != nil {
			return
		}
		if errors.Is(err, errFenced) {
			f.svc.log.Error("another instance owns the stream now", "stream", f.stream, "record", f.key)
			return
		}
		f.svc.log.Warn("record was not written; trying again", "record", f.key, "error", err)
		if f.svc.cfg.Host.Sleep(f.svc.ctx, wait) != nil {
			return
		}
		f.mu.Lock()
		overtaken := f.next != nil
		f.mu.Unlock()
		if overtaken {
			return
		}
	}
}

func (f *file) put(next *writing) error {
	ctx, cancel := f.svc.cfg.Host.WithTimeout(f.svc.ctx, callTimeout)
	defer cancel()
	v, err := next.make(ctx)
	if err != nil {
		return err
	}
	v.Term = f.svc.protocol.Term
	value, err := keepMode.Marshal(v)
	if err != nil {
		return err
	}
	var rev uint64
	if f.revision == 0 {
		rev, err = f.svc.records.Create(ctx, f.key, value)
	} else {
		rev, err = f.svc.records.Update(ctx, f.key, value, f.revision)
	}
	if err == nil {
		f.revision = rev
		if next.written == nil {
			return nil
		}
		return next.written(ctx, v)
	}
	if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
		return err
	}
	have, readErr := f.read(ctx)
	if readErr != nil {
		return readErr
	}
	if have.Term > v.Term {
		return errFenced
	}
	return err // the next try goes over the revision just read
}
