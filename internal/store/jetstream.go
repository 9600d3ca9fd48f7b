package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

const (
	openTimeout = 20 * time.Second // as long as a cluster may be without a leader
	openTry     = 3 * time.Second  // what is asked without one is never answered
	answerIn    = 3 * time.Second  // so that the caller can ask again when there is one
	markerTTL   = 24 * time.Hour   // how long a watcher may be away and still learn of an Erase
	maxHistory  = 64               // the limit of a JetStream KV bucket
	listAtOnce  = 16

	opHeader = "KV-Operation" // ADR-8: what a JetStream KV client marks a deletion with
	opDelete = "DEL"
)

// Option changes how [OpenJetStream] makes a bucket.
type Option func(*jetstream.StreamConfig)

// WithReplicas keeps n copies (1, 3 or 5) in a cluster; the default is 1.
func WithReplicas(n int) Option {
	return func(c *jetstream.StreamConfig) { c.Replicas = n }
}

// OpenJetStream makes the bucket, or opens it and brings its settings up to
// date. history (1 to 64) is how many revisions of a key are kept; Prune and
// Erase overwrite the bytes of kept revisions only, so a key that holds a
// secret must be written at most history times between two of them.
//
// Reads go to the stream's leader, never to a follower that may lag.
func OpenJetStream(js jetstream.JetStream, bucket string, history int, opts ...Option) (KV, error) {
	if history < 1 || history > maxHistory {
		return nil, fmt.Errorf("bucket %q: history is %d, want 1 to %d", bucket, history, maxHistory)
	}
	cfg := jetstream.StreamConfig{
		Name:     "KV_" + bucket,
		Subjects: []string{"$KV." + bucket + ".>"},
		// Erase writes its marker before the last value is overwritten.
		MaxMsgsPerSubject: int64(max(history, 2)),
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		AllowRollup:       true,
		AllowMsgTTL:       true,
		// The KV client forbids deletion by sequence, which Erase needs, and
		// allows direct reads from followers, which compare-and-set does not bear.
		DenyDelete:  false,
		AllowDirect: false,
	}
	for _, opt := range opts {
		opt(&cfg)
	}
	for began := time.Now(); ; {
		kv, err := open(js, bucket, cfg)
		if err == nil {
			return kv, nil
		}
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, jetstream.ErrNoStreamResponse) && !errors.Is(err, nats.ErrNoResponders) || time.Since(began) > openTimeout {
			return nil, fmt.Errorf("cannot open bucket %q in JetStream: %w", bucket, err)
		}
		time.Sleep(openTry / 10)
	}
}

func open(js jetstream.JetStream, bucket string, cfg jetstream.StreamConfig) (KV, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openTry)
	defer cancel()
	stream, err := js.CreateOrUpdateStream(ctx, cfg)
	if err != nil {
		return nil, err
	}
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, err
	}
	return &jetStream{js: js, stream: stream, kv: kv, subjects: "$KV." + bucket + "."}, nil
}

type jetStream struct {
	js       jetstream.JetStream
	stream   jetstream.Stream
	kv       jetstream.KeyValue
	subjects string
}

func (s *jetStream) Get(ctx context.Context, key string) (Entry, error) {
	if err := checkKey(key); err != nil {
		return Entry{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	e, err := s.kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return Entry{}, failed("get", key, ErrNotFound)
	case err != nil:
		return Entry{}, failed("get", key, err)
	}
	return Entry{Key: key, Value: e.Value(), Revision: e.Revision()}, nil
}

func (s *jetStream) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	rev, err := s.kv.Create(ctx, key, value)
	switch {
	case errors.Is(err, jetstream.ErrKeyExists), conflict(err):
		return 0, failed("create", key, ErrExists)
	case err != nil:
		return 0, failed("create", key, err)
	}
	return rev, nil
}

func (s *jetStream) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	rev, err := s.kv.Update(ctx, key, value, rev)
	switch {
	case conflict(err):
		return 0, failed("update", key, ErrConflict)
	case err != nil:
		return 0, failed("update", key, err)
	}
	return rev, nil
}

func (s *jetStream) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	rev, err := s.kv.Put(ctx, key, value)
	if err != nil {
		return 0, failed("put", key, err)
	}
	return rev, nil
}

func (s *jetStream) Prune(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	revs, err := s.revisions(ctx, key)
	if err != nil || len(revs) == 0 {
		return err
	}
	return s.overwrite(ctx, key, revs[:len(revs)-1])
}

// Erase overwrites the old values, puts a marker over the newest, which is the
// moment of deletion for readers and watchers, and overwrites that one too. A
// crash in between leaves a key that Erase can finish.
func (s *jetStream) Erase(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	for {
		revs, err := s.revisions(ctx, key)
		if err != nil || len(revs) == 0 {
			return err
		}
		last := len(revs) - 1
		if err := s.overwrite(ctx, key, revs[:last]); err != nil {
			return err
		}
		if revs[last].marker {
			return nil
		}
		err = s.mark(ctx, key, revs[last].seq)
		if conflict(err) {
			continue
		}
		if err != nil {
			return failed("erase", key, err)
		}
		return s.overwrite(ctx, key, revs[last:])
	}
}

type revision struct {
	seq    uint64
	marker bool
}

// revisions finds everything that is kept of key, oldest first.
func (s *jetStream) revisions(ctx context.Context, key string) ([]revision, error) {
	var revs []revision
	for next := uint64(1); ; {
		m, err := s.message(ctx, next, jetstream.WithGetMsgSubject(s.subjects+key))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return revs, nil
		}
		if err != nil {
			return nil, failed("read revisions of", key, err)
		}
		revs = append(revs, revision{m.Sequence, m.Header.Get(opHeader) != ""})
		next = m.Sequence + 1
	}
}

func (s *jetStream) message(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	return s.stream.GetMsg(ctx, seq, opts...)
}

func (s *jetStream) overwrite(ctx context.Context, key string, revs []revision) error {
	for _, r := range revs {
		one, cancel := context.WithTimeout(ctx, answerIn)
		err := s.stream.SecureDeleteMsg(one, r.seq)
		cancel()
		if err == nil {
			continue
		}
		// Somebody else may have overwritten it meanwhile.
		if _, gone := s.message(ctx, r.seq); !errors.Is(gone, jetstream.ErrMsgNotFound) {
			return failed("erase", key, err)
		}
	}
	return nil
}

func (s *jetStream) mark(ctx context.Context, key string, rev uint64) error {
	m := nats.NewMsg(s.subjects + key)
	m.Header.Set(opHeader, opDelete)
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	_, err := s.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(rev), jetstream.WithMsgTTL(markerTTL))
	return err
}

// conflict reports that the last revision was not the expected one; replicated
// streams have a code of their own for it.
func conflict(err error) bool {
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return true
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// List asks the stream for its subjects and reads each. The KV client's way,
// a consumer that counts down what was pending, waits for ever when a key is
// erased meanwhile.
func (s *jetStream) List(ctx context.Context, prefix string) ([]Entry, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	keys, err := s.keys(ctx, prefix)
	if err != nil {
		return nil, failed("list", prefix, err)
	}
	entries := make([]Entry, len(keys))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(listAtOnce)
	for i, key := range keys {
		g.Go(func() error {
			e, err := s.Get(gctx, key)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			entries[i] = e
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, failed("list", prefix, err)
	}
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.Key == "" })
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	return entries, nil
}

func (s *jetStream) keys(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	for _, filter := range filters(prefix) {
		one, cancel := context.WithTimeout(ctx, answerIn)
		info, err := s.stream.Info(one, jetstream.WithSubjectFilter(s.subjects+filter))
		cancel()
		if err != nil {
			return nil, err
		}
		for subject := range info.State.Subjects {
			keys = append(keys, strings.TrimPrefix(subject, s.subjects))
		}
	}
	return keys, nil
}

// filters are the NATS subjects that [under] agrees with.
func filters(prefix string) []string {
	if prefix == "" {
		return []string{">"}
	}
	return []string{prefix, prefix + ".>"}
}

func (s *jetStream) Watch(ctx context.Context, prefix string, fn func(Entry, bool)) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	w, err := s.kv.WatchFiltered(ctx, filters(prefix))
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return failed("watch", prefix, err)
	}
	defer func() {
		_ = w.Stop()
		for range w.Updates() {
			// The client's callback blocks on a full channel and would never end.
		}
	}()
	live := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-w.Updates():
			if !ok {
				return failed("watch", prefix, errors.New("the connection to the bus was closed"))
			}
			if u == nil {
				continue // the client's sign that the present state is complete
			}
			e := Entry{Key: u.Key(), Revision: u.Revision()}
			if u.Operation() == jetstream.KeyValuePut {
				e.Value = u.Value()
				live[e.Key] = true
				fn(e, false)
			} else if live[e.Key] {
				delete(live, e.Key)
				fn(e, true)
			}
		}
	}
}
