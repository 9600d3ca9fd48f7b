package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// checkMQTT says what is wrong with the settings of a foreign broker.
func (c Config) checkMQTT() error {
	if c.MQTTBroker == "" {
		for name, value := range map[string]string{
			"mqtt-ca": c.MQTTCA, "mqtt-cert": c.MQTTCert, "mqtt-key": c.MQTTKey, "mqtt-user": c.MQTTUser, "mqtt-password-file": c.MQTTPassword,
		} {
			if value != "" {
				return fmt.Errorf("%s: is for a broker of somebody else's, and mqtt-broker names none: name it, or leave %s out", name, name)
			}
		}
		return nil
	}
	b, err := bus.ParseBroker(c.MQTTBroker)
	switch {
	case err != nil:
		return fmt.Errorf("mqtt-broker: %w", err)
	case !b.Foreign && !c.external():
		return fmt.Errorf("mqtt-broker: %q is no URL: write mqtts://%s", c.MQTTBroker, c.MQTTBroker)
	case !b.Foreign && (c.MQTTCA != "" || c.MQTTCert != "" || c.MQTTUser != ""):
		return fmt.Errorf("mqtt-broker: %q, without a scheme, is the broker of one of our own processes, which knows all of us: leave mqtt-ca, mqtt-cert and mqtt-user out", c.MQTTBroker)
	case (c.MQTTCert == "") != (c.MQTTKey == ""):
		return errors.New("mqtt-cert and mqtt-key belong together: give both or none")
	case c.MQTTPassword != "" && c.MQTTUser == "":
		return errors.New("mqtt-password-file: whose password is it? give mqtt-user too")
	}
	return nil
}

// foreignBroker is what devices are told of a broker of somebody else's.
func (c Config) foreignBroker() (url string, ca [][]byte, err error) {
	if c.MQTTCA == "" {
		return c.MQTTBroker, nil, nil
	}
	certs, err := bus.ReadCAFile("mqtt-ca", c.MQTTCA)
	for _, cert := range certs {
		ca = append(ca, cert.Raw)
	}
	return c.MQTTBroker, ca, err
}

// dialBroker connects the processing service to the devices' broker: our own, or
// somebody else's. The latter may be away for a while; media goes on meanwhile.
func (n *Node) dialBroker(ctx context.Context, creds *credentials) (bus.Courier, error) {
	log := n.log("processing")
	cfg := bus.MQTTConfig{
		ClientID:    controllerClientID(n.cfg.ID),
		Certificate: tls.Certificate{Certificate: [][]byte{creds.cert.Raw}, PrivateKey: creds.key},
		Lost:        func(err error) { log.Warn("no connection to the MQTT broker", "error", err) },
		Refused:     func(err error) { log.Error("the MQTT broker refuses what it granted", "error", err) },
	}
	if n.cfg.MQTTBroker == "" {
		cfg.Address, cfg.ServerName, cfg.CA = localAddr(n.mqtt), "localhost", creds.pool()
		return bus.DialMQTT(ctx, cfg)
	}
	b, err := bus.ParseBroker(n.cfg.MQTTBroker)
	if err != nil {
		return nil, fmt.Errorf("mqtt-broker: %w", err)
	}
	cfg.Address, cfg.Plain, cfg.TLS12, cfg.Patient = b.Address, b.Plain, b.Foreign, true
	if !b.Foreign { // of one of our own processes
		cfg.CA = creds.pool()
	}
	cfg.User, cfg.PasswordFile = n.cfg.MQTTUser, n.cfg.MQTTPassword
	cfg.Up = func() { log.Info("connected to the MQTT broker", "broker", n.cfg.MQTTBroker) }
	if n.cfg.MQTTCA != "" {
		ca, err := bus.ReadCAFile("mqtt-ca", n.cfg.MQTTCA)
		if err != nil {
			return nil, err
		}
		cfg.CA = bus.Pool(ca)
	}
	if n.cfg.MQTTCert != "" {
		if cfg.Certificate, err = tls.LoadX509KeyPair(n.cfg.MQTTCert, n.cfg.MQTTKey); err != nil {
			return nil, fmt.Errorf("mqtt-cert: %w", err)
		}
	}
	return bus.DialMQTT(ctx, cfg)
}
