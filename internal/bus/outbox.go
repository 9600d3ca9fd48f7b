package bus

import (
	"errors"
	"sync"
	"time"
)

// ErrBehind means that the MQTT broker takes messages more slowly than they are sent:
// this one is left out, as the network might have left it out.
var ErrBehind = errors.New("the MQTT broker does not take messages fast enough")

// maxOutbox bounds the messages that wait for the broker.
const maxOutbox = 1024

// outbox sends messages in order, and lets nobody wait for the broker: one that does
// not read would hold up, with every message for a device, whatever its sender does next
// for the stream: have a stolen key replaced, say.
type outbox struct {
	waiting chan outgoing
	stop    chan struct{}
	done    chan struct{}
	once    sync.Once
}

type outgoing struct {
	topic   string
	payload []byte
}

func newOutbox(publish func(topic string, payload []byte)) *outbox {
	o := &outbox{waiting: make(chan outgoing, maxOutbox), stop: make(chan struct{}), done: make(chan struct{})}
	go func() { // ends with close
		defer close(o.done)
		for {
			select {
			case m := <-o.waiting:
				publish(m.topic, m.payload)
				continue
			default:
			}
			select {
			case m := <-o.waiting:
				publish(m.topic, m.payload)
			case <-o.stop:
				return
			}
		}
	}()
	return o
}

// send leaves a message to be sent. The payload belongs to the outbox from then on.
func (o *outbox) send(topic string, payload []byte) error {
	select {
	case o.waiting <- outgoing{topic, payload}:
		return nil
	default:
		return ErrBehind
	}
}

// close gives what waits a moment to leave. What is sent later is not; closing twice
// does nothing.
func (o *outbox) close(moment time.Duration) {
	o.once.Do(func() { close(o.stop) })
	select {
	case <-o.done:
	case <-time.After(moment):
	}
}
