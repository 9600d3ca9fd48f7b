package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/gaitkeeper/gaitkeeper/internal/host"
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
	CA          *x509.CertPool  // whom to trust; nil: the CAs of the system
	ServerName  string          // name in the broker's certificate; none: the host of Address
	Plain       bool            // no TLS: only for a broker on the same machine
	TLS12       bool            // accept TLS 1.2 too, from brokers that know no newer
	// User and PasswordFile are for brokers that want them. The file is read at
	// every connection, and nothing of it is kept.
	User, PasswordFile string
	// Patient makes a broker that cannot be reached yet no error: it is tried for
	// ever. One that refuses us is an error all the same.
	Patient bool
	// Lost and Up are called, from other goroutines, when the connection is lost
	// and when it is there (again); Refused when the broker refuses a
	// subscription that it granted before. Each may be nil.
	Lost    func(error)
	Up      func()
	Refused func(error)
}

const (
	mqttConnectTimeout = 5 * time.Second
	mqttKeepAlive      = 5 * time.Second
	closeMoment        = 100 * time.Millisecond
	mqttReconnectMax   = time.Second // a stream without its broker cannot change keys: try often
)

type mqttCourier struct {
	client  mqtt.Client
	out     *outbox
	refused func(error)
	mu      sync.Mutex
	subs    map[string]mqtt.MessageHandler
}

// DialMQTT connects to a broker with MQTT 3.1.1 over TLS. It fails when the
// first connection cannot be made; later ones are retried for ever.
func DialMQTT(ctx context.Context, c MQTTConfig) (Courier, error) {
	name, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("%w: address %q is not host:port: %v", ErrBroker, c.Address, err)
	}
	k := &mqttCourier{subs: map[string]mqtt.MessageHandler{}, refused: c.Refused}
	o := mqtt.NewClientOptions().
		SetClientID(c.ClientID).
		SetCleanSession(true).
		SetProtocolVersion(4).
		SetConnectTimeout(mqttConnectTimeout).
		SetKeepAlive(mqttKeepAlive).
		SetPingTimeout(mqttKeepAlive).
		SetWriteTimeout(mqttConnectTimeout).
		SetAutoReconnect(true).
		SetConnectRetryInterval(mqttReconnectMax).
		SetMaxReconnectInterval(mqttReconnectMax).
		SetOrderMatters(true).
		SetOnConnectHandler(func(client mqtt.Client) {
			k.resubscribe(client)
			if c.Up != nil {
				c.Up()
			}
		}).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			if c.Lost != nil {
				c.Lost(err)
			}
		})
	if c.User != "" {
		if _, err := c.password(); err != nil {
			return nil, err
		}
		o.SetCredentialsProvider(func() (string, string) {
			password, _ := c.password() // a file that is gone is a refused connection
			return c.User, password
		})
	}
	if c.Plain {
		o.AddBroker("tcp://" + c.Address)
	} else {
		o.AddBroker("ssl://" + c.Address)
		o.SetTLSConfig(c.tls(name))
	}
	k.client, err = connect(ctx, o)
	if err == nil {
		return k.ready(), nil
	}
	if c.Patient && unreachable(err) {
		if c.Lost != nil {
			c.Lost(fmt.Errorf("%s cannot be reached yet: %w", c.Address, err))
		}
		k.client = mqtt.NewClient(o.SetConnectRetry(true))
		k.client.Connect()
		return k.ready(), nil
	}
	return nil, explain(c, err)
}

func (k *mqttCourier) ready() *mqttCourier {
	k.out = newOutbox(func(topic string, payload []byte) { k.client.Publish(topic, 0, false, payload) })
	return k
}

func connect(ctx context.Context, o *mqtt.ClientOptions) (mqtt.Client, error) {
	client := mqtt.NewClient(o)
	t := client.Connect()
	select {
	case <-t.Done():
	case <-ctx.Done():
		client.Disconnect(0)
		return nil, ctx.Err()
	}
	if err := t.Error(); err != nil {
		client.Disconnect(0)
		return nil, err
	}
	return client, nil
}

func (c MQTTConfig) password() (string, error) {
	if c.PasswordFile == "" {
		return "", nil
	}
	return ReadSecretLine("mqtt-password-file", c.PasswordFile)
}

func (c MQTTConfig) tls(name string) *tls.Config {
	t := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: c.CA, ServerName: c.ServerName, Time: host.CertTime}
	if t.ServerName == "" {
		t.ServerName = name
	}
	if c.TLS12 {
		t.MinVersion = tls.VersionTLS12
	}
	if len(c.Certificate.Certificate) > 0 {
		// Shown whatever CAs the broker names: lists are often incomplete, and a
		// certificate that is not asked for is not sent.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.Certificate, nil }
	}
	return t
}

// unreachable tells whether nobody was there, or answered in time; everything
// else is a refusal, which trying again does not mend.
func unreachable(err error) bool {
	var op *net.OpError
	var timeout net.Error
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return false
	}
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &timeout) && timeout.Timeout()
}

// explain says what a refused connection most likely means.
func explain(c MQTTConfig, err error) error {
	var cert *tls.CertificateVerificationError
	var alert tls.AlertError
	var op *net.OpError
	why := "is gaitkeeper serve running there, and the port open?"
	if c.Plain || c.TLS12 {
		why = "is the broker running there, and the port open?"
	}
	switch {
	case errors.As(err, &cert):
		why = "is the broker's certificate from the CA given with --mqtt-ca, and for this host name?"
	case errors.As(err, &alert):
		why = "the broker does not accept our certificate: does it trust the CA that issued it?"
	case !c.Plain && (errors.Is(err, io.EOF) || errors.As(err, &op) && op.Op != "dial"):
		// In TLS 1.3 a refusal comes after the handshake, and often only as an end.
		why = "the broker hung up, as one does that does not accept our certificate: does it trust the CA that issued it?"
	case errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, packets.ErrorRefusedNotAuthorised):
		why = fmt.Sprintf("the broker does not let %q in: check its users, and --mqtt-user and --mqtt-password-file or the certificate", c.ClientID)
	case errors.Is(err, packets.ErrorRefusedIDRejected):
		why = fmt.Sprintf("the broker does not allow the client id %q", c.ClientID)
	}
	return fmt.Errorf("%w: %s: %w: %s", ErrBroker, c.Address, err, why)
}

// resubscribe takes the subscriptions up again. It waits for nothing: it runs on
// the connection's own goroutine.
func (k *mqttCourier) resubscribe(client mqtt.Client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for f, h := range k.subs {
		t := client.Subscribe(f, 0, h)
		go func() {
			if err := granted(t, f); err != nil && k.refused != nil && client.IsConnectionOpen() {
				k.refused(err)
			}
		}()
	}
}

// Send implements [Courier] at QoS 0: acknowledgement and retry are the
// protocol's own. It waits for nothing.
func (k *mqttCourier) Send(topic string, payload []byte) error {
	if !k.client.IsConnectionOpen() {
		return ErrNotConnected
	}
	return k.out.send(topic, payload)
}

// Listen implements [Courier]. A subscription that the broker refuses is an
// error; without a connection it is made when there is one.
func (k *mqttCourier) Listen(filter string, handle func(string, []byte)) error {
	h := func(_ mqtt.Client, m mqtt.Message) { handle(m.Topic(), m.Payload()) }
	k.mu.Lock()
	k.subs[filter] = h
	k.mu.Unlock()
	if !k.client.IsConnectionOpen() {
		return nil
	}
	return granted(k.client.Subscribe(filter, 0, h), filter)
}

// granted waits for the broker's answer to a subscription.
func granted(t mqtt.Token, filter string) error {
	if !t.WaitTimeout(mqttConnectTimeout) {
		return fmt.Errorf("%w: no answer to the subscription to %s", ErrBroker, filter)
	}
	if err := t.Error(); err != nil {
		return fmt.Errorf("%w: subscribe to %s: %w", ErrBroker, filter, err)
	}
	if s, ok := t.(*mqtt.SubscribeToken); ok && s.Result()[filter] == 0x80 {
		return fmt.Errorf("%w: it refuses the subscription to %s: its access rules do not let us listen there", ErrBroker, filter)
	}
	return nil
}

// Connected implements [Courier].
func (k *mqttCourier) Connected() bool { return k.client.IsConnectionOpen() }

// Close implements [Courier]; it gives what was sent last a moment to leave.
func (k *mqttCourier) Close() {
	k.out.close(closeMoment)
	k.client.Disconnect(uint(closeMoment.Milliseconds()))
}
