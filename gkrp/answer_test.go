package gkrp

import (
	"bytes"
	"testing"
	"time"
)

// A broker can keep what a service once said and give it to the device again
// while its session runs. Nothing may come of that.
func TestOldAnswersAreNoAnswers(t *testing.T) {
	d, fx := NewDevice(t0, Hello{Device: "cam-1", Stream: "cam-1", Session: testSession, Versions: []Version{0, 1}, Suites: []Suite{1}}, time.Second, time.Minute)
	asked := Hash(must(Encode(fx[0].(Send).Message)))
	reject := func(regarding []byte) Heard {
		return Heard{Message: &Reject{Session: testSession, Regarding: regarding, Code: CodeBusy, RetryAfter: 400}}
	}
	challenge := func(hash []byte, n byte) Heard {
		return Heard{Message: &Challenge{Session: testSession, HelloHash: hash, Nonce: bytes.Repeat([]byte{n}, 16)}}
	}
	if fx := d.Step(t0, reject(nil)); len(fx) != 0 {
		t.Errorf("a REJECT of nothing: %v", fx)
	}
	if fx := d.Step(t0, challenge(make([]byte, 32), 1)); len(fx) != 0 || d.Stage() != DeviceAsking {
		t.Errorf("a CHALLENGE of another HELLO: %v", fx)
	}
	if fx := d.Step(t0, reject(asked)); len(fx) != 1 {
		t.Errorf("a REJECT of the HELLO: %v", fx)
	}
	fx = d.Step(t0, challenge(asked, 1))
	proven := Hash(must(Encode(fx[0].(Send).Message)))
	if fx := d.Step(t0, challenge(asked, 1)); len(fx) != 0 {
		t.Errorf("the same CHALLENGE again: %v", fx)
	}
	// The nonce's life ended, or the service restarted: it challenges the HELLO
	// that carries the nonce.
	fx = d.Step(t0, challenge(proven, 2))
	if len(fx) != 1 {
		t.Fatalf("a CHALLENGE of the proven HELLO: %v", fx)
	}
	again := Hash(must(Encode(fx[0].(Send).Message)))
	if bytes.Equal(again, proven) {
		t.Fatal("the new nonce is not used")
	}
	fx = d.Step(t0, Heard{Message: &Welcome{
		Session: testSession, HelloHash: again, Versions: []Version{0, 1}, Suites: []Suite{1}, Version: 1, Suite: 1, Stream: "cam-1",
		Transports: []string{"a:1"}, Grant: must(Encode(&Grant{Stream: "cam-1", Session: testSession, Epoch: 1, Envelope: []byte{1}})),
	}})
	if len(fx) != 2 {
		t.Fatalf("WELCOME: %v", fx)
	}
	ack := d.Step(t0, Installed{Epoch: 1, Confirm: make([]byte, 32)})[0].(Send).Message
	for _, old := range [][]byte{nil, asked, proven, again} {
		if fx := d.Step(t0, reject(old)); len(fx) != 0 {
			t.Errorf("an old REJECT ended the session: %v", fx)
		}
		if fx := d.Step(t0, challenge(old, 3)); len(fx) != 0 || d.Stage() != DeviceRunning {
			t.Errorf("an old CHALLENGE: %v", fx)
		}
	}
	for i := range uint64(2 * keptSent) {
		d.Step(t0, Sent{Report{From: 1, To: 2, Packets: i}})
	}
	if fx := d.Step(t0, reject(Hash(must(Encode(ack))))); len(fx) != 0 {
		t.Errorf("a REJECT of what was sent long ago: %v", fx)
	}
	last := d.Step(t0, Sent{Report{From: 1, To: 2}})[0].(Send).Message
	fx = d.Step(t0, reject(Hash(must(Encode(last)))))
	if len(fx) != 1 || fx[0].(Over).Code != CodeBusy {
		t.Errorf("a REJECT of the last REPORT: %v", fx)
	}
}
