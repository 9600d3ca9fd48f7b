package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// Verdict is what a check came to.
type Verdict string

// The verdicts: fine; works, but not as it should; does not work.
const (
	Fine    Verdict = "ok"
	Warning Verdict = "warning"
	Failure Verdict = "failure"
)

// Finding is the result of one check of [Diagnose].
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found"`          // what there is, or the cause
	Mend    string  `json:"mend,omitempty"` // what to do about it
}

// doctor collects findings about one deployment.
type doctor struct {
	cfg      Config
	running  string // the pid of the server that has the data directory; empty: none
	findings []Finding
}

const (
	doctorTimeout = 5 * time.Second
	expirySoon    = 30 * 24 * time.Hour
	diskLow       = 1 << 30 // bytes
	filesLow      = 4096    // open files
)

// Diagnose looks at everything that a server with these settings needs, and
// changes nothing. It takes some seconds where something does not answer.
func Diagnose(ctx context.Context, cfg Config) []Finding {
	d := &doctor{cfg: cfg}
	if err := cfg.Check(); err != nil {
		d.fail("settings", err.Error(), "mend the setting named; gaitkeeper config prints them all")
		return d.findings
	}
	d.fine("settings", "they fit together")
	d.dataDirectory()
	d.secrets()
	d.server(ctx)
	d.ports()
	d.receiveBuffer()
	d.files()
	d.clock()
	d.advertised(ctx)
	d.certificates(time.Now())
	d.mqtt(ctx)
	d.bus(ctx)
	d.programs()
	return d.findings
}

func (d *doctor) fine(check, found string)       { d.add(check, Fine, found, "") }
func (d *doctor) warn(check, found, mend string) { d.add(check, Warning, found, mend) }
func (d *doctor) fail(check, found, mend string) { d.add(check, Failure, found, mend) }

func (d *doctor) add(check string, v Verdict, found, mend string) {
	d.findings = append(d.findings, Finding{check, v, found, mend})
}

// dataDirectory also finds out whether a server runs on it.
func (d *doctor) dataDirectory() {
	const check = "data directory"
	dir := d.cfg.Data
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.fine(check, dir+" will be made at the first start")
		return
	case err != nil:
		d.fail(check, fmt.Sprintf("%s: %v", dir, plain(err)), "choose another with --data")
		return
	case !st.IsDir():
		d.fail(check, dir+" is no directory", "choose another with --data")
		return
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	switch {
	case err == nil:
		// Shared: two doctors are not one another's server, and a server that starts
		// right now sees that this is none.
		if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
			b, _ := os.ReadFile(lock.Name()) // only for words
			d.running = strings.TrimSpace(string(b))
		}
		_ = lock.Close() // and with it the lock
	case !errors.Is(err, fs.ErrNotExist):
		d.fail(check, fmt.Sprintf("%s is not writable: %v", dir, plain(err)), fmt.Sprintf("run as its owner, or chown -R it to the user who runs gaitkeeper: %s", dir))
		return
	}
	var disk unix.Statfs_t
	if unix.Statfs(dir, &disk) == nil {
		if free := disk.Bavail * uint64(disk.Bsize); free < diskLow {
			d.warn(check, fmt.Sprintf("%s has %d MiB left", dir, free>>20), "make room: without it no key can be stored, and none changes")
			return
		}
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		d.warn(check, fmt.Sprintf("%s is open to others (mode %04o)", dir, mode), "chmod 700 "+dir)
		return
	}
	d.fine(check, dir)
}

// secrets are the files that only their owner may read.
func (d *doctor) secrets() {
	var open []string
	for _, name := range []string{kekFile, tokenFile} {
		path := filepath.Join(d.cfg.Data, name)
		if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
			open = append(open, path)
		}
	}
	if d.cfg.external() {
		keys, _ := filepath.Glob(filepath.Join(d.cfg.busDir(), "*-key.pem")) // the pattern is right
		for _, path := range keys {
			if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
				open = append(open, path)
			}
		}
	}
	for _, path := range []string{d.cfg.MQTTPassword, d.cfg.MQTTKey, d.cfg.KEKPassphrase, d.cfg.KEKToken} {
		if st, err := os.Stat(path); path != "" && err == nil && st.Mode().Perm()&0o077 != 0 {
			open = append(open, path)
		}
	}
	if len(open) > 0 {
		d.fail("secrets", "others on this machine can read "+strings.Join(open, ", "), "chmod 600 "+strings.Join(open, " ")+"; if anybody else works here, change them")
		return
	}
	d.fine("secrets", "only their owner can read them")
}

// server asks the one that runs what it thinks of itself.
func (d *doctor) server(ctx context.Context) {
	const check = "server"
	if d.running == "" {
		d.fine(check, "none runs on this data directory")
		return
	}
	if !d.cfg.runs(roleAPI) {
		d.fine(check, "runs, pid "+d.running)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	client, err := NewClient(ClientConfig{Data: d.cfg.Data, Timeout: doctorTimeout})
	if err == nil {
		err = client.Do(ctx, "GET", "/readyz", nil, &struct{}{})
	}
	if err != nil {
		d.fail(check, fmt.Sprintf("pid %s does not say that it is ready: %v", d.running, err), "look at its log; GET /readyz names the part that does not answer")
		return
	}
	d.fine(check, "runs and is ready, pid "+d.running)
}

// ports tells which listeners could not be opened. Those of a server that runs
// are taken, by itself.
func (d *doctor) ports() {
	const check = "ports"
	if d.running != "" {
		d.fine(check, "open, by the server that runs")
		return
	}
	var all []string
	for _, l := range []struct{ role, setting, addr, network string }{
		{roleAPI, "listen", d.cfg.Listen, "tcp"}, {roleAPI, "join-listen", d.cfg.JoinListen, "tcp"},
		{roleBroker, "mqtt-listen", d.cfg.MQTTListen, "tcp"}, {roleTransport, "media-listen", d.cfg.MediaListen, "udp"},
	} {
		if !d.cfg.runs(l.role) {
			continue
		}
		all = append(all, l.addr)
		var err error
		if l.network == "tcp" {
			err = probeTCP(l.setting, l.addr)
		} else if c, lerr := net.ListenPacket("udp", l.addr); lerr != nil {
			err = listenError(l.setting, l.addr, lerr)
		} else {
			err = c.Close()
		}
		if err != nil {
			text := err.Error()
			at := strings.LastIndex(text, ": ") // behind it stands what to do
			d.fail(check, text[:at], text[at+2:])
		}
	}
	if !d.failed(check) {
		d.fine(check, "free: "+strings.Join(all, ", "))
	}
}

func (d *doctor) failed(check string) bool {
	for _, f := range d.findings {
		if f.Check == check && f.Verdict != Fine {
			return true
		}
	}
	return false
}

// receiveBuffer tells whether the kernel gives the media socket what it asks for.
func (d *doctor) receiveBuffer() {
	const check = "UDP receive buffer"
	if !d.cfg.runs(roleTransport) {
		return
	}
	want := int(d.cfg.MediaBuffer)
	sock, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{ReceiveBuffer: want})
	if err != nil {
		d.fail(check, err.Error(), "is this a container without network?")
		return
	}
	defer sock.Close()
	if got := sock.Granted().ReceiveBuffer; got > 0 && got < want {
		d.warn(check, fmt.Sprintf("the kernel gives %d KiB of the %d KiB asked for: packets are lost when the machine is busy", got>>10, want>>10),
			fmt.Sprintf("sysctl -w net.core.rmem_max=%d, and the same in /etc/sysctl.d", want))
		return
	}
	d.fine(check, fmt.Sprintf("%d KiB", want>>10))
}

func (d *doctor) files() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return
	}
	if l.Max < filesLow {
		d.warn("open files", fmt.Sprintf("this user may open %d: each viewer and device needs one", l.Max), fmt.Sprintf("LimitNOFILE=%d in the systemd unit, or ulimit -n", 1<<16))
		return
	}
	d.fine("open files", fmt.Sprintf("up to %d", l.Max))
}

// advertised tells whether others can find this machine by the name that they
// are told.
func (d *doctor) advertised(ctx context.Context) {
	const check = "advertised address"
	beyond := ""
	for _, l := range []struct{ role, addr string }{{roleAPI, d.cfg.JoinListen}, {roleBroker, d.cfg.MQTTListen}, {roleTransport, d.cfg.MediaListen}} {
		if d.cfg.runs(l.role) && !isLoopback(l.addr) {
			beyond = l.addr
		}
	}
	ip := net.ParseIP(d.cfg.Advertise)
	if ip == nil {
		ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
		defer cancel()
		addrs, err := net.DefaultResolver.LookupHost(ctx, d.cfg.Advertise)
		if err != nil {
			d.fail(check, fmt.Sprintf("%s has no address: %v", d.cfg.Advertise, err), "enter it in the DNS, or give an address with --advertise")
			return
		}
		ip = net.ParseIP(addrs[0])
	}
	if beyond != "" && ip.IsLoopback() {
		d.warn(check, fmt.Sprintf("%s listens for other machines, and devices are told %s, which is themselves", beyond, d.cfg.Advertise), "give the name or address of this machine with --advertise")
		return
	}
	d.fine(check, d.cfg.Advertise)
}

// certificates are those in files; the ones in memory are made at every start.
func (d *doctor) certificates(now time.Time) {
	const check = "certificates"
	files := map[string]string{
		filepath.Join(d.cfg.Data, caFile): "", // where it is there
		d.cfg.MQTTCert:                    "renew it where it came from",
		d.cfg.MQTTCA:                      "fetch the broker's present CA",
	}
	if d.cfg.external() {
		found, _ := filepath.Glob(filepath.Join(d.cfg.busDir(), "*.pem")) // the pattern is right
		for _, path := range found {
			if !strings.HasSuffix(path, "-key.pem") {
				files[path] = "run gaitkeeper bus-setup again where its CA is, and copy what it makes"
			}
		}
	}
	n := 0
	for path, mend := range files {
		b, err := os.ReadFile(path)
		if path == "" || errors.Is(err, fs.ErrNotExist) && mend == "" {
			continue
		}
		block, _ := pem.Decode(b)
		if err != nil || block == nil {
			d.fail(check, fmt.Sprintf("%s cannot be read as PEM (%v)", path, err), mend)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			d.fail(check, fmt.Sprintf("%s: %v", path, err), mend)
		case now.After(cert.NotAfter):
			d.fail(check, fmt.Sprintf("%s ended on %s", path, cert.NotAfter.Format(time.DateOnly)), mend)
		case now.Before(cert.NotBefore):
			d.fail(check, fmt.Sprintf("%s begins only on %s", path, cert.NotBefore.Format(time.DateOnly)), "set this machine's clock")
		case now.Add(expirySoon).After(cert.NotAfter):
			d.warn(check, fmt.Sprintf("%s ends on %s", path, cert.NotAfter.Format(time.DateOnly)), mend)
		}
		n++
	}
	if !d.failed(check) {
		d.fine(check, fmt.Sprintf("%d in files, valid", n))
	}
}

// mqtt greets a foreign broker. It does not log in: that would end the session
// of the service that is there under the same name.
func (d *doctor) mqtt(ctx context.Context) {
	const check = "MQTT broker"
	if d.cfg.MQTTBroker == "" || d.cfg.runs(roleBroker) {
		return
	}
	b, err := bus.ParseBroker(d.cfg.MQTTBroker)
	if err != nil {
		return // told with the settings
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.Address)
	if err != nil {
		d.fail(check, err.Error(), "start the broker, open its port to this machine, or mend --mqtt-broker; media goes on meanwhile, and no key changes")
		return
	}
	defer conn.Close()
	if !b.Plain {
		secure := &tls.Config{}
		secure.ServerName, _, _ = net.SplitHostPort(b.Address)
		path := d.cfg.MQTTCA
		if !b.Foreign {
			path = filepath.Join(d.cfg.Data, caFile)
		}
		if path != "" {
			ca, err := bus.ReadCAFile("mqtt-ca", path)
			if err != nil {
				d.warn(check, "it answers; its certificate cannot be judged: "+err.Error(), "start serve once, which fetches ca.pem, or mend --mqtt-ca")
				return
			}
			secure.RootCAs = bus.Pool(ca)
		}
		if err := tls.Client(conn, secure).HandshakeContext(ctx); err != nil {
			d.fail(check, fmt.Sprintf("%s: %v", b.Address, err), "give the CA of its certificate with --mqtt-ca, and the name that it is for with --mqtt-broker")
			return
		}
	}
	d.fine(check, d.cfg.MQTTBroker+" answers")
}

// programs are what sources and outputs of some kinds need.
func (d *doctor) programs() {
	for _, p := range []struct{ name, debian, for_ string }{
		{"ffmpeg", "ffmpeg", "rtsp:// sources"}, {"srt-live-transmit", "srt-tools", "srt:// sources"}, {"ristreceiver", "rist-tools", "rist:// sources"},
	} {
		if path, err := exec.LookPath(p.name); err == nil {
			d.fine("program "+p.name, path)
		} else {
			d.warn("program "+p.name, "is not installed: a device on this machine cannot take "+p.for_, "apt install "+p.debian+", if you need them")
		}
	}
}
