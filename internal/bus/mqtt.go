package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// ErrBroker is wrapped by the errors of [DialMQTT].
var ErrBroker = errors.New("MQTT broker cannot be used")

// ErrNotConnected means that the broker cannot be reached at the moment; the
// connection is being taken up again in the background.
var ErrNotConnected = errors.New("not connected to the MQTT broker")

// MQTTConfig says which broker to use, and as whom.
type MQTTConfig struct {
	Address     string          // host:port
	ClientID    string          // must be what the certificate names
	Certificate tls.Certificate // the client's own
	CA          *x509.CertPool  // whom to trust
	ServerName  string          // name in the broker's certificate; none: the host of Address
	Plain       bool            // no TLS: only for a broker on the same machine
	// Lost and Up are called, from other goroutines, when the connection is lost
	// and when it is there (again). Either may be nil.
	Lost func(error)
	Up   func()
}

const (
	mqttConnectTimeout = 5 * time.Second
	mqttKeepAlive      = 5 * time.Second
	mqttReconnectMax   = time.Second // a stream without its broker cannot change keys: try often
)

type mqttCourier struct {
	client mqtt.Client
	mu     sync.Mutex
	subs   map[string]mqtt.MessageHandler
}

// DialMQTT connects to a broker with MQTT 3.1.1 over TLS. It fails when the
// first connection cannot be made; later ones are retried for ever.
func DialMQTT(ctx context.Context, c MQTTConfig) (Courier, error) {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("%w: address %q is not host:port: %v", ErrBroker, c.Address, err)
	}
	k := &mqttCourier{subs: map[string]mqtt.MessageHandler{}}
	o := mqtt.NewClientOptions().
		SetClientID(c.ClientID).
		SetCleanSession(true).
		SetProtocolVersion(4).
		SetConnectTimeout(mqttConnectTimeout).
		SetKeepAlive(mqttKeepAlive).
		SetPingTimeout(mqttKeepAlive).
		SetWriteTimeout(mqttConnectTimeout).
		SetAutoReconnect(true).
		SetMaxReconnectInterval(mqttReconnectMax).
		SetOrderMatters(true).
		SetOnConnectHandler(func(mqtt.Client) {
			k.resubscribe()
			if c.Up != nil {
				c.Up()
			}
		}).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			if c.Lost != nil {
				c.Lost(err)
			}
		})
	if c.Plain {
		o.AddBroker("tcp://" + c.Address)
	} else {
		name := c.ServerName
		if name == "" {
			name = host
		}
		o.AddBroker("ssl://" + c.Address)
		o.SetTLSConfig(&tls.Config{
			MinVersion:   tls.VersionTLS13,
			Certificates: []tls.Certificate{c.Certificate},
			RootCAs:      c.CA,
			ServerName:   name,
		})
	}
	k.client = mqtt.NewClient(o)
	t := k.client.Connect()
	select {
	case <-t.Done():
	case <-ctx.Done():
		k.client.Disconnect(0)
		return nil, ctx.Err()
	}
	if err := t.Error(); err != nil {
		k.client.Disconnect(0)
		return nil, fmt.Errorf("%w: %s: %w: is gaitkeeper serve running there, and the port open?", ErrBroker, c.Address, err)
	}
	return k, nil
}

func (k *mqttCourier) resubscribe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for f, h := range k.subs {
		k.client.Subscribe(f, 0, h) // without waiting: this runs on the connection's own goroutine
	}
}

// Send implements [Courier] at QoS 0: acknowledgement and retry are the
// protocol's own.
func (k *mqttCourier) Send(topic string, payload []byte) error {
	if !k.client.IsConnectionOpen() {
		return ErrNotConnected
	}
	k.client.Publish(topic, 0, false, payload)
	return nil
}

// Listen implements [Courier]. A subscription that the broker refuses is an error.
func (k *mqttCourier) Listen(filter string, handle func(string, []byte)) error {
	h := func(_ mqtt.Client, m mqtt.Message) { handle(m.Topic(), m.Payload()) }
	k.mu.Lock()
	k.subs[filter] = h
	k.mu.Unlock()
	t, _ := k.client.Subscribe(filter, 0, h).(*mqtt.SubscribeToken)
	if !t.WaitTimeout(mqttConnectTimeout) {
		return fmt.Errorf("%w: no answer to the subscription to %s", ErrBroker, filter)
	}
	if err := t.Error(); err != nil {
		return fmt.Errorf("%w: subscribe to %s: %w", ErrBroker, filter, err)
	}
	if t.Result()[filter] == 0x80 {
		return fmt.Errorf("%w: it refuses the subscription to %s: this certificate may not listen there", ErrBroker, filter)
	}
	return nil
}

// Connected implements [Courier].
func (k *mqttCourier) Connected() bool { return k.client.IsConnectionOpen() }

// Close implements [Courier]; it gives what was sent last a moment to leave.
func (k *mqttCourier) Close() { k.client.Disconnect(100) }
