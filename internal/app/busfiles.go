package app

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// BusProcess is a process that is to use external NATS servers.
type BusProcess struct {
	ID    string
	Roles []string
}

// BusServer is one of the NATS servers.
type BusServer struct {
	Host                 string
	Port, ClusterPort    int
	Install, Store, Name string // directories on the server; its name in the cluster
}

// Lives of what [WriteBus] makes. Certificates are made anew at every run of it.
const (
	busCALife   = 20 * 365 * 24 * time.Hour
	busCertLife = 3 * 365 * 24 * time.Hour
)

const busCAKeyFile = "bus-ca-key.pem"

// busServerURI names a NATS server in its certificate. Servers know one another by
// it: a process's certificate, of the same CA, must not open the door between
// servers, behind which there are no permissions. No user's URI is like it: those
// name a role and a process.
var busServerURI = &url.URL{Scheme: "gaitkeeper-bus", Opaque: "nats-server"}

// ParseBusProcess reads NAME=ROLE,ROLE.
func ParseBusProcess(text string) (BusProcess, error) {
	name, list, ok := strings.Cut(text, "=")
	p := BusProcess{ID: name, Roles: strings.Split(list, ",")}
	if !ok || list == "" {
		return p, fmt.Errorf("process %q: write NAME=ROLE,ROLE with roles of %s", text, strings.Join(allRoles, ", "))
	}
	if _, err := gk.ParseTransportID(name); err != nil {
		return p, fmt.Errorf("process %q: %w", text, err)
	}
	for _, r := range p.Roles {
		if !slices.Contains(allRoles, r) {
			return p, fmt.Errorf("process %q: role %q is none of %s", text, r, strings.Join(allRoles, ", "))
		}
	}
	return p, nil
}

// ParseBusServer reads HOST[:PORT[/CLUSTERPORT]].
func ParseBusServer(text string) (BusServer, error) {
	s := BusServer{Host: text, Port: 4222, ClusterPort: 6222}
	addr, cluster, more := strings.Cut(text, "/")
	bad := fmt.Errorf("server %q: write HOST[:PORT[/CLUSTERPORT]]", text)
	if host, port, err := net.SplitHostPort(addr); err == nil {
		s.Host = host
		if s.Port, err = strconv.Atoi(port); err != nil {
			return s, bad
		}
	} else {
		s.Host = strings.Trim(addr, "[]")
	}
	var err error
	if more {
		if s.ClusterPort, err = strconv.Atoi(cluster); err != nil {
			return s, bad
		}
	}
	if s.Host == "" || strings.ContainsAny(s.Host, " \"'{}") || s.Port < 1 || s.Port > 65535 || s.ClusterPort < 1 || s.ClusterPort > 65535 {
		return s, bad
	}
	return s, nil
}

// WriteBus writes into dir what NATS servers and the processes that use them
// need: a CA, made at the first run and kept, a directory for each server and one
// for each process. Nothing of it is ever sent: the operator copies each
// directory to its machine, and keeps the CA's key.
func WriteBus(dir string, servers []BusServer, processes []BusProcess, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("bus-setup: %w", err)
	}
	w := busWriter{dir: dir, now: now}
	if err := w.authority(); err != nil {
		return fmt.Errorf("bus-setup: %w", err)
	}
	var all []bus.User
	names := map[string]bool{}
	for _, p := range processes {
		if names[p.ID] {
			return fmt.Errorf("bus-setup: two processes are called %s: give each its own name", p.ID)
		}
		names[p.ID] = true
		for _, r := range p.Roles {
			for _, role := range users[r] {
				all = append(all, bus.User{Role: role, ID: gk.TransportID(p.ID)})
			}
		}
	}
	accounts := bus.AccountsConfig(all)
	for _, s := range servers {
		if err := w.server(s, servers, accounts); err != nil {
			return fmt.Errorf("bus-setup: server %s: %w", s.Host, err)
		}
	}
	for _, u := range all {
		place := filepath.Join(dir, "process-"+string(u.ID))
		cert, key := credentialFiles(u.Role)
		uri := &url.URL{Scheme: "gaitkeeper-bus", Opaque: string(u.Role) + "/" + string(u.ID)}
		if err := w.issue(place, cert, key, &x509.Certificate{
			Subject: pkix.Name{CommonName: uri.Opaque}, URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}); err != nil {
			return fmt.Errorf("bus-setup: process %s: %w", u.ID, err)
		}
	}
	return nil
}

type busWriter struct {
	dir string
	now time.Time
	ca  *x509.Certificate
	key ed25519.PrivateKey
}

// authority reads the CA, or makes it.
func (w *busWriter) authority() error {
	certPath, keyPath := filepath.Join(w.dir, busCAFile), filepath.Join(w.dir, busCAKeyFile)
	text, err := os.ReadFile(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		return w.makeAuthority(certPath, keyPath)
	}
	if err != nil {
		return err
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s is not PEM: restore it, or choose an empty directory", keyPath)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: %w", keyPath, err)
	}
	certs, err := bus.ReadCAFile(busCAFile, certPath)
	if err != nil {
		return err
	}
	var ok bool
	if w.key, ok = key.(ed25519.PrivateKey); !ok || !w.key.Public().(ed25519.PublicKey).Equal(certs[0].PublicKey) {
		return fmt.Errorf("%s and %s do not belong together: restore them, or choose an empty directory", certPath, keyPath)
	}
	w.ca = certs[0]
	return nil
}

func (w *busWriter) makeAuthority(certPath, keyPath string) error {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: randomSerial(), Subject: pkix.Name{Organization: []string{"Gaitkeeper"}, CommonName: "Gaitkeeper bus CA"},
		NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(busCALife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, public, key)
	if err != nil {
		return err
	}
	if w.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	w.key = key
	if err := writeKey(keyPath, key); err != nil {
		return err
	}
	return os.WriteFile(certPath, certificatePEM(der), 0o644)
}

func randomSerial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand does not fail
	return new(big.Int).SetBytes(b)
}

func writeKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	return os.WriteFile(path, text, 0o600)
}

// issue writes a certificate by template t, its key, and the CA into place.
func (w *busWriter) issue(place, cert, key string, t *x509.Certificate) error {
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	t.SerialNumber, t.NotBefore, t.NotAfter = randomSerial(), w.now.Add(-time.Hour), w.now.Add(busCertLife)
	t.KeyUsage, t.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	der, err := x509.CreateCertificate(rand.Reader, t, w.ca, public, w.key)
	if err != nil {
		return err
	}
	return errors.Join(
		writeKey(filepath.Join(place, key), private),
		os.WriteFile(filepath.Join(place, cert), certificatePEM(der), 0o644),
		os.WriteFile(filepath.Join(place, busCAFile), certificatePEM(w.ca.Raw), 0o644),
	)
}

// server writes one server's directory.
func (w *busWriter) server(s BusServer, all []BusServer, accounts string) error {
	name := s.Name
	if name == "" {
		name = s.Host
	}
	place := filepath.Join(w.dir, "server-"+name)
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		URIs:        []*url.URL{busServerURI},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // servers are one another's clients
	}
	if ip := net.ParseIP(s.Host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{s.Host}
	}
	if err := w.issue(place, "server.pem", "server-key.pem", t); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(place, "accounts.conf"), []byte(accounts), 0o644),
		os.WriteFile(filepath.Join(place, "nats-server.conf"), []byte(serverConfig(s, name, all)), 0o644),
	)
}

func serverConfig(s BusServer, name string, all []BusServer) string {
	var b strings.Builder
	tls := fmt.Sprintf("  cert_file: %q\n  key_file: %q\n  ca_file: %q\n",
		filepath.Join(s.Install, "server.pem"), filepath.Join(s.Install, "server-key.pem"), filepath.Join(s.Install, busCAFile))
	fmt.Fprintf(&b, "# Made by gaitkeeper bus-setup: nats-server -c %s\n\n", filepath.Join(s.Install, "nats-server.conf"))
	fmt.Fprintf(&b, "server_name: %q\nlisten: \"0.0.0.0:%d\"\n\n", name, s.Port)
	fmt.Fprintf(&b, "# What is written is on the disk before it is answered: no key is used that a\n# power cut could take away.\njetstream {\n  store_dir: %q\n  sync_interval: always\n}\n\n", s.Store)
	fmt.Fprintf(&b, "# Users come by certificate alone; accounts.conf says what each may.\ntls {\n%s  verify_and_map: true\n}\ninclude accounts.conf\n", tls)
	if len(all) > 1 {
		routes := make([]string, len(all))
		for i, o := range all {
			routes[i] = fmt.Sprintf("\"nats-route://%s\"", net.JoinHostPort(o.Host, strconv.Itoa(o.ClusterPort)))
		}
		fmt.Fprintf(&b, "\ncluster {\n  name: gaitkeeper\n  listen: \"0.0.0.0:%d\"\n  routes: [%s]\n  authorization { user: %q }\n  tls {\n  %s    verify_and_map: true\n  }\n}\n",
			s.ClusterPort, strings.Join(routes, ", "), busServerURI.String(), strings.ReplaceAll(tls, "\n  ", "\n    "))
	}
	return b.String()
}
