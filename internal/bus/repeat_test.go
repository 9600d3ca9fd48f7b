package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// listen starts a NATS server on a port of this machine; 0 takes any.
func listen(t *testing.T, port int) *server.Server {
	t.Helper()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	return s
}

// dial connects over the network; what is cut off comes back by itself.
func dial(t *testing.T, s *server.Server) *NATS {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return NewNATS(nc)
}

// TestRepeatableRequestOutlivesItsServer: a request that was under way in a server that
// died is asked again at the next, and its asker hears of nothing; any other ends as cut.
func TestRepeatableRequestOutlivesItsServer(t *testing.T) {
	s := listen(t, 0)
	asker, service := dial(t, s), dial(t, s)
	heard, let := make(chan string, 8), make(chan struct{})
	for _, subject := range []string{"again", "once"} {
		if _, err := service.Respond(subject, func(ctx context.Context, _ string, _ []byte) []byte {
			heard <- subject + " " + fmt.Sprint(Asking(ctx) != "")
			<-let
			return []byte("answer")
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := service.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type end struct {
		data []byte
		err  error
	}
	once, again := make(chan end, 1), make(chan end, 1)
	go func() { b, err := asker.Request(ctx, "once", nil, false); once <- end{b, err} }()
	if h := <-heard; h != "once false" {
		t.Fatalf("heard %q", h)
	}
	go func() { b, err := asker.Request(ctx, "again", nil, true); again <- end{b, err} }()
	if h := <-heard; h != "again true" {
		t.Fatalf("heard %q", h)
	}
	port := s.Addr().(*net.TCPAddr).Port
	s.Shutdown()
	s.WaitForShutdown()
	if e := <-once; !errors.Is(e.err, ErrCut) {
		t.Errorf("what may not be repeated ended with %v, want ErrCut", e.err)
	}
	listen(t, port)
	close(let)
	if e := <-again; e.err != nil || string(e.data) != "answer" {
		t.Errorf("what may be repeated: %q, %v", e.data, e.err)
	}
}

// TestRepeatableRequestIsAskedAgain: nobody tells who has a connection to a living
// server that his request, or its answer, died with another one.
func TestRepeatableRequestIsAskedAgain(t *testing.T) {
	s := listen(t, 0)
	asker, service := dial(t, s), dial(t, s)
	var n atomic.Int64
	if _, err := service.nc.Subscribe("lossy", func(m *nats.Msg) {
		if n.Add(1) > 1 { // the first is lost
			_ = m.Respond(m.Data)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := service.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if b, err := asker.Request(ctx, "lossy", []byte("x"), true); err != nil || string(b) != "x" || n.Load() != 2 {
		t.Errorf("%q, %v, after %d requests", b, err, n.Load())
	}
}

// TestRepeatableRequestThatReachesNobody ends as any other: nobody is there to have lost it.
func TestRepeatableRequestThatReachesNobody(t *testing.T) {
	s := listen(t, 0)
	asker := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := asker.Request(ctx, "nobody", nil, true)
	if n, most := asker.nc.Stats().OutMsgs, uint64(resubscribeGrace/resubscribePace); !errors.Is(err, ErrNoResponder) || n > most {
		t.Errorf("%v, after %d requests of %d", err, n, most)
	}
}

// TestAnswerTooLargeIsRefused: its asker is told, and not left to ask until his deadline.
func TestAnswerTooLargeIsRefused(t *testing.T) {
	s := listen(t, 0)
	asker, service := dial(t, s), dial(t, s)
	var n atomic.Int64
	const question = Repeatable[int, []byte]("gk.test.large")
	if _, err := question.Serve(service, func(context.Context, int) ([]byte, error) {
		n.Add(1)
		return make([]byte, service.nc.MaxPayload()), nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := service.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var refusal *Refusal
	if _, err := question.Do(ctx, asker, 1); !errors.As(err, &refusal) || refusal.Code != CodeInternal || n.Load() != 1 {
		t.Errorf("%v, after %d answers", err, n.Load())
	}
}

// TestRepetitionIsWorkedOnOnce: a responder that is slow is not asked to do the same
// again; who asks later gets the answer.
func TestRepetitionIsWorkedOnOnce(t *testing.T) {
	s := listen(t, 0)
	asker, service := dial(t, s), dial(t, s)
	var n atomic.Int64
	let := make(chan struct{})
	if _, err := service.Respond("slow", func(context.Context, string, []byte) []byte {
		n.Add(1)
		<-let
		return []byte("done")
	}); err != nil {
		t.Fatal(err)
	}
	if err := service.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := asker.Request(ctx, "slow", nil, true)
		ended <- err
	}()
	for asker.nc.Stats().OutMsgs < 2 { // the request and its repetition
		time.Sleep(10 * time.Millisecond)
	}
	if err := errors.Join(asker.Flush(ctx), service.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	close(let)
	if err := <-ended; err != nil || n.Load() != 1 {
		t.Errorf("%v; worked on %d times", err, n.Load())
	}
}

// TestAskingIsNoKeyToAnothersAnswer: who gives his request the name of somebody else's
// and asks for something else is not answered as that one.
func TestAskingIsNoKeyToAnothersAnswer(t *testing.T) {
	c := newCrowd[string]("x")
	same := func(a string) func(string) bool { return func(b string) bool { return a == b } }
	if e := c.enter("1", "a", same("a")); e != entered {
		t.Fatal(e)
	}
	if e := c.enter("1", "b", same("b")); e != entered {
		t.Errorf("another request under the same name: %v", e)
	}
	if to := c.leave("1", "b", same("b")); to != "b" {
		t.Errorf("b is answered as %s", to)
	}
	if to := c.leave("1", "a", same("a")); to != "a" || c.inside != 0 || len(c.asked) != 0 {
		t.Errorf("a is answered as %s; %d inside, %d known", to, c.inside, len(c.asked))
	}
}

// TestResponderIsBounded: beyond so many requests at the same time a responder refuses,
// in words and in a count, and takes the next when one is done. Who asked in vain asks
// again by himself.
func TestResponderIsBounded(t *testing.T) {
	eachConn(t, func(t *testing.T, a, b Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		var inside, most atomic.Int64
		let := make(chan struct{})
		const call = Call[int, int]("gk.test.crowd")
		if _, err := call.Serve(b, func(_ context.Context, n int) (int, error) {
			now := inside.Add(1)
			defer inside.Add(-1)
			for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
			}
			<-let
			return n, nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		before := TurnedAway()[string(call)]
		ended := make(chan error, maxAtOnce)
		for n := range maxAtOnce {
			go func() {
				_, err := call.Do(ctx, a, n)
				ended <- err
			}()
		}
		for inside.Load() < maxAtOnce {
			time.Sleep(time.Millisecond)
		}
		// An asker who is still waiting for an answer when his time ends does not know.
		for patience := 100 * time.Millisecond; ; patience *= 2 {
			short, stop := context.WithTimeout(ctx, patience)
			_, err := call.Do(short, a, -1)
			stop()
			if CodeOf(err) == CodeBusy {
				break
			}
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("one more: %v", err)
			}
		}
		if n := TurnedAway()[string(call)] - before; n == 0 {
			t.Error("nobody counted it")
		}
		close(let)
		for range maxAtOnce {
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		}
		if n, err := call.Do(ctx, a, 7); err != nil || n != 7 {
			t.Errorf("afterwards: %d, %v", n, err)
		}
		if most.Load() > maxAtOnce {
			t.Errorf("%d at once", most.Load())
		}
	})
}
