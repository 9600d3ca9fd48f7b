package bus

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Broker is where an MQTT broker is, as a setting or a join answer names it.
type Broker struct {
	Address string // host:port
	Plain   bool   // no TLS
	// Foreign is set for a broker named by URL, which may have a certificate of
	// any CA; host:port alone is the broker of the service itself.
	Foreign bool
}

// The ports that IANA has for MQTT, used where a URL names none.
const (
	portMQTT  = "1883"
	portMQTTS = "8883"
)

// maxBrokerText bounds what a join answer may name as a broker, in bytes.
const maxBrokerText = 300

// ParseBroker reads mqtts://HOST[:PORT], mqtt://HOST[:PORT] for a broker on this
// machine, or HOST:PORT for the service's own broker, which speaks TLS.
func ParseBroker(text string) (Broker, error) {
	if len(text) > maxBrokerText {
		return Broker{}, fmt.Errorf("a broker's address has at most %d bytes", maxBrokerText)
	}
	if !strings.Contains(text, "://") {
		if err := checkAddress(text); err != nil {
			return Broker{}, fmt.Errorf("broker %q: %w: write mqtts://HOST:PORT", text, err)
		}
		return Broker{Address: text}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return Broker{}, fmt.Errorf("broker %q is not a URL: write mqtts://HOST:PORT", text)
	}
	b := Broker{Foreign: true, Plain: u.Scheme == "mqtt"}
	port := portMQTTS
	switch {
	case u.Scheme == "mqtt":
		port = portMQTT
	case u.Scheme != "mqtts":
		return Broker{}, fmt.Errorf("broker %q: scheme %q is not known: write mqtts://HOST:PORT", u.Redacted(), u.Scheme)
	}
	switch {
	case u.User != nil:
		return Broker{}, errors.New("broker: user and password do not belong in the URL, where everybody sees them: give --mqtt-user and --mqtt-password-file")
	case u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return Broker{}, fmt.Errorf("broker %q: nothing may stand behind the port: write mqtts://HOST:PORT", text)
	}
	if p := u.Port(); p != "" {
		port = p
	}
	b.Address = net.JoinHostPort(u.Hostname(), port)
	if err := checkAddress(b.Address); err != nil {
		return Broker{}, fmt.Errorf("broker %q: %w: write mqtts://HOST:PORT", text, err)
	}
	if b.Plain && !loopback(u.Hostname()) {
		return Broker{}, fmt.Errorf("broker %q: without TLS anybody on the way can cut devices off from their keys: write mqtts://, or run the broker on this machine", text)
	}
	return b, nil
}

func checkAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return errors.New("is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// maxCAFile bounds a file of CA certificates, so that a join answer can carry it.
const maxCAFile = 32 << 10

// ReadCAFile reads the certificates in a PEM file, of which there must be one at
// least. setting names the file in errors.
func ReadCAFile(setting, path string) ([]*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	if len(b) > maxCAFile {
		return nil, fmt.Errorf("%s: %s has more than %d bytes: keep only the CA that the broker's certificate is from", setting, path, maxCAFile)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: a certificate in %s does not parse: %w", setting, path, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: %s holds no certificate in PEM form", setting, path)
	}
	return certs, nil
}

// Pool is a pool of certs; nil, the system's CAs, where there are none.
func Pool(certs []*x509.Certificate) *x509.CertPool {
	if len(certs) == 0 {
		return nil
	}
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// ReadSecretLine reads the first line of a file that holds a password.
func ReadSecretLine(setting, path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	defer clear(b)
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("%s: the first line of %s is empty", setting, path)
	}
	return line, nil
}
