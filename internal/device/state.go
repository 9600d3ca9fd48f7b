package device

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	gk "github.com/gaitkeeper/gaitkeeper"
)

const (
	identityFile = "identity.json"
	epochsFile   = "epochs.json"
	lockFile     = "lock"
)

// ErrNotJoined means that a state directory holds no identity yet.
var ErrNotJoined = errors.New("this device has not joined yet")

// Identity is who an enrolled device is, and whom it trusts.
type Identity struct {
	Device    gk.DeviceID
	Streams   []gk.StreamID      // that it may send
	Key       ed25519.PrivateKey `json:"-"` // its own; signs protocol messages and proves the certificate
	Cert      *x509.Certificate
	CA        *x509.Certificate
	KMSPublic ed25519.PublicKey // signs every key envelope
	Broker    string            // as [bus.ParseBroker] reads it
	// BrokerCA is whom a broker of somebody else's is trusted by; none: the CAs of
	// the system.
	BrokerCA []*x509.Certificate
}

// Format keeps the private key out of logs and errors.
func (i Identity) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "device %s of %s", i.Device, i.Broker)
}

// Certificate is what the device shows to the broker.
func (i Identity) Certificate() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{i.Cert.Raw}, PrivateKey: i.Key, Leaf: i.Cert}
}

// Roots is the pool of the one CA that the device trusts.
func (i Identity) Roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(i.CA)
	return p
}

// storedIdentity is Identity as it lies on disk.
type storedIdentity struct {
	Device      gk.DeviceID   `json:"device"`
	Streams     []gk.StreamID `json:"streams"`
	Broker      string        `json:"broker"`
	Key         string        `json:"key"`         // PKCS #8, PEM
	Certificate string        `json:"certificate"` // PEM
	CA          string        `json:"ca"`          // PEM
	BrokerCA    []string      `json:"broker_ca,omitempty"`
	KMSPublic   []byte        `json:"kms_public"` // Ed25519, 32 bytes
}

// State is a device's directory: its identity, and the highest epoch that each
// stream has used. It is locked for as long as it is open, because two agents
// with one identity would fight over their sessions.
type State struct {
	dir  string
	lock *os.File

	mu     sync.Mutex // guards epochs and the file they are in
	epochs map[gk.StreamID]gk.Epoch
}

// OpenState makes dir (mode 0700) if need be and locks it.
func OpenState(dir string) (*State, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory %s cannot be made: %w: choose another with --state", dir, err)
	}
	s := &State{dir: dir, epochs: map[gk.StreamID]gk.Epoch{}}
	if err := s.acquire(); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, epochsFile))
	if err == nil {
		err = json.Unmarshal(b, &s.epochs)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = s.Close()
		return nil, fmt.Errorf("%s: %w: remove it; the service keeps its own count", filepath.Join(dir, epochsFile), err)
	}
	return s, nil
}

func (s *State) acquire() error {
	path := filepath.Join(s.dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("state directory %s cannot be written: %w: choose another with --state", s.dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		_ = f.Close()
		return fmt.Errorf("state directory %s is in use by another agent (pid %s): stop it or choose another with --state", s.dir, strings.TrimSpace(string(holder)))
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0) // only for the message above
	s.lock = f
	return nil
}

// Close unlocks the directory.
func (s *State) Close() error { return s.lock.Close() }

// Identity reads the stored identity. The error wraps [ErrNotJoined] when there
// is none.
func (s *State) Identity() (Identity, error) {
	path := filepath.Join(s.dir, identityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("%w: %s holds no identity: give a token with --join (gaitkeeper enroll prints one)", ErrNotJoined, s.dir)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("cannot read the device's identity: %w", err)
	}
	i, err := decodeIdentity(b)
	if err != nil {
		return Identity{}, fmt.Errorf("%s is damaged: %w: remove it and join with a new token", path, err)
	}
	return i, nil
}

func decodeIdentity(b []byte) (Identity, error) {
	var st storedIdentity
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&st); err != nil {
		return Identity{}, err
	}
	i := Identity{Device: st.Device, Streams: st.Streams, Broker: st.Broker, KMSPublic: st.KMSPublic}
	if _, err := gk.ParseDeviceID(string(st.Device)); err != nil {
		return Identity{}, err
	}
	if len(i.KMSPublic) != ed25519.PublicKeySize {
		return Identity{}, fmt.Errorf("key management service's key has %d bytes, want %d", len(i.KMSPublic), ed25519.PublicKeySize)
	}
	block, _ := pem.Decode([]byte(st.Key))
	if block == nil {
		return Identity{}, errors.New("key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Identity{}, errors.New("key is not a PKCS #8 key")
	}
	var ok bool
	if i.Key, ok = key.(ed25519.PrivateKey); !ok {
		return Identity{}, errors.New("key is not an Ed25519 key")
	}
	if i.Cert, err = parseCertificate(st.Certificate); err != nil {
		return Identity{}, fmt.Errorf("certificate: %w", err)
	}
	if i.CA, err = parseCertificate(st.CA); err != nil {
		return Identity{}, fmt.Errorf("CA: %w", err)
	}
	for _, text := range st.BrokerCA {
		c, err := parseCertificate(text)
		if err != nil {
			return Identity{}, fmt.Errorf("CA of the broker: %w", err)
		}
		i.BrokerCA = append(i.BrokerCA, c)
	}
	return i, i.check()
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// check says whether the parts belong together: the certificate is for our key
// and from the CA that is trusted.
func (i Identity) check() error {
	if public, ok := i.Cert.PublicKey.(ed25519.PublicKey); !ok || !public.Equal(i.Key.Public()) {
		return errors.New("the certificate is for another key")
	}
	if err := i.Cert.CheckSignatureFrom(i.CA); err != nil {
		return fmt.Errorf("the certificate is not from the CA: %w", err)
	}
	return nil
}

// keep stores i for the next start.
func (s *State) keep(i Identity) error {
	der, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		return err
	}
	defer clear(der)
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	var brokerCA []string
	for _, c := range i.BrokerCA {
		brokerCA = append(brokerCA, encode("CERTIFICATE", c.Raw))
	}
	b, err := json.MarshalIndent(storedIdentity{
		BrokerCA: brokerCA,
		Device:   i.Device, Streams: i.Streams, Broker: i.Broker, KMSPublic: i.KMSPublic,
		Key: encode("PRIVATE KEY", der), Certificate: encode("CERTIFICATE", i.Cert.Raw), CA: encode("CERTIFICATE", i.CA.Raw),
	}, "", "  ")
	if err != nil {
		return err
	}
	defer clear(b)
	return replaceFile(filepath.Join(s.dir, identityFile), b)
}

// HighWater is the highest epoch that stream ever used here.
func (s *State) HighWater(stream gk.StreamID) gk.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epochs[stream]
}

// raise writes down that stream uses epoch.
func (s *State) raise(stream gk.StreamID, epoch gk.Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch <= s.epochs[stream] {
		return nil
	}
	s.epochs[stream] = epoch
	b, err := json.Marshal(s.epochs)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.dir, epochsFile), b)
}

// replaceFile writes a file of mode 0600 so that a crash leaves the old content
// or the new one.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename it is no longer there
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
