package app

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// Config is every setting of `gaitkeeper serve`. Its tags are the one place
// where a setting is named and described: flags, GAITKEEPER_* variables, the
// configuration file, its sample and the help all come from here.
type Config struct {
	Data      string `group:"place" type:"path" default:"${data_dir}" placeholder:"DIR" help:"Directory that holds everything that must outlive a restart: keys (wrapped), state, certificates, audit trail."`
	ID        string `group:"place" default:"main" placeholder:"NAME" help:"Name of this instance, in certificates and events."`
	Advertise string `group:"place" default:"127.0.0.1" placeholder:"HOST" help:"Host name or address at which devices and viewers reach this machine; it goes into join tokens, certificates and the media address."`

	Roles          []string `group:"place" placeholder:"ROLE" help:"Services to run in this process: kms, processing, transport, api, broker. Empty: all of them. Fewer need a bus that others reach too."`
	Bus            string   `group:"place" placeholder:"URL" help:"NATS servers with JetStream to use as the bus, nats://HOST[:PORT],HOST[:PORT], instead of the built-in one."`
	BusCredentials string   `group:"place" type:"path" placeholder:"DIR" help:"Directory that gaitkeeper bus-setup made for this process: the certificates by which the NATS servers know its roles. Empty: bus in the data directory."`
	BusReplicas    int      `group:"place" default:"0" placeholder:"N" help:"Copies of the state that the NATS servers keep: 1, 3 or 5. 0: three where bus names three servers or more, otherwise one."`

	Listen      string `group:"network" default:"127.0.0.1:8080" placeholder:"ADDR" help:"API, metrics and viewers. Plain HTTP on loopback; TLS, and a token for everybody, on any other address."`
	JoinListen  string `group:"network" default:"127.0.0.1:8843" placeholder:"ADDR" help:"Where new devices join with their token (always TLS)."`
	MQTTListen  string `group:"network" name:"mqtt-listen" default:"127.0.0.1:8883" placeholder:"ADDR" help:"MQTT broker for devices (mutual TLS only)."`
	MediaListen string `group:"network" default:"127.0.0.1:7004" placeholder:"ADDR" help:"UDP address that receives SRTP."`

	MQTTBroker   string `group:"network" name:"mqtt-broker" placeholder:"URL" help:"MQTT 3.1.1 broker of somebody else's to meet the devices at, mqtts://HOST:PORT (mqtt:// on this machine only), instead of running one. Devices are told of it when they join."`
	MQTTCA       string `group:"network" name:"mqtt-ca" type:"path" placeholder:"FILE" help:"CA certificate of that broker in PEM form, which devices are given too. Empty: the CAs that systems trust."`
	MQTTCert     string `group:"network" name:"mqtt-cert" type:"path" placeholder:"FILE" help:"Certificate to show to that broker, in PEM form. Empty: the one that key management gave to processing, with the common name processing:ID."`
	MQTTKey      string `group:"network" name:"mqtt-key" type:"path" placeholder:"FILE" help:"Private key of mqtt-cert in PEM form."`
	MQTTUser     string `group:"network" name:"mqtt-user" placeholder:"NAME" help:"User name at that broker, if it wants one."`
	MQTTPassword string `group:"network" name:"mqtt-password-file" type:"path" placeholder:"FILE" help:"File whose first line is the password of mqtt-user. It is read at every connection."`

	RotateEvery   time.Duration `group:"keys" default:"10m" placeholder:"TIME" help:"Age at which a media key is changed."`
	RotatePackets uint64        `group:"keys" default:"8388608" placeholder:"N" help:"Number of packets after which a media key is changed."`
	Lease         time.Duration `group:"keys" default:"1m" placeholder:"TIME" help:"How long keys at the transports go on serving when the key management service does not vouch for their device any more. It bounds how long a revoked device's media flows while the bus is down, and how long anybody's media survives such an outage."`
	AllowX25519   bool          `group:"keys" name:"allow-x25519" help:"Seal keys also to devices that have only the classical suite X25519. Whoever records their messages and has a quantum computer one day reads their video then."`
	MinVersion    uint8         `group:"keys" name:"min-protocol-version" default:"0" placeholder:"N" help:"Lowest minor version of the key rotation protocol, major 1, that devices may speak."`

	UrgentRotations     int           `group:"keys" default:"6" placeholder:"N" help:"Rotations that evidence of an anomaly may cause for one stream in a row; then it is told, and an operator decides. Scheduled and ordered rotations are not counted."`
	UrgentRefill        time.Duration `group:"keys" default:"10m" placeholder:"TIME" help:"Time after which one of these rotations of a stream is allowed again."`
	SiteUrgentRotations int           `group:"keys" default:"60" placeholder:"N" help:"The same for all streams together."`
	SiteUrgentRefill    time.Duration `group:"keys" default:"10s" placeholder:"TIME" help:"Time after which one of the site's is allowed again."`

	KEK           string `group:"keys" name:"kek" placeholder:"URI" help:"Key-encryption key: file:PATH, or vault:https://HOST[:PORT]/MOUNT/keys/NAME for a key of a transit engine of Vault or OpenBao, which is asked at the start only. Empty: the file kek in the data directory, made at the first start."`
	KEKPassphrase string `group:"keys" name:"kek-passphrase-file" type:"path" placeholder:"FILE" help:"File whose first line is the passphrase of the key file."`
	KEKToken      string `group:"keys" name:"kek-token-file" type:"path" placeholder:"FILE" help:"File whose first line is the token for Vault, mode 0600. Empty: the variable VAULT_TOKEN. Vault's CA is in VAULT_CACERT, as for its own tools."`

	LearnFor         time.Duration `group:"behaviour" default:"90s" placeholder:"TIME" help:"Normal behaviour that is learned of a source until its profile is mature."`
	ProvisionalAfter time.Duration `group:"behaviour" default:"20s" placeholder:"TIME" help:"Normal behaviour after which a source is judged already, with wide margins."`
	Probation        time.Duration `group:"behaviour" default:"30s" placeholder:"TIME" help:"Normal behaviour of a new session, or after a restart, until margins are narrow again."`
	Sensitivity      float64       `group:"behaviour" default:"0.5" placeholder:"X" help:"From above 0 to 1: more finds more and errs more often. Lower it when alarms are false, raise it when changes are missed."`
	RespondProof     string        `group:"behaviour" default:"rotate" enum:"show,alert,rotate" placeholder:"DO" help:"On proof that somebody else has the media key: rotate (alert and new key), alert, or show."`
	RespondSource    string        `group:"behaviour" default:"rotate" enum:"show,alert,rotate" placeholder:"DO" help:"When a source is no longer itself: rotate (alert and one new key), alert, or show."`
	RespondPath      string        `group:"behaviour" default:"alert" enum:"show,alert" placeholder:"DO" help:"When the network disturbs a stream for long: alert, or show. It never changes a key."`
	RespondNoise     string        `group:"behaviour" default:"alert" enum:"show,alert" placeholder:"DO" help:"When outsiders without a key send to a stream: alert, or show. It never changes a key."`
	PathAlertAfter   time.Duration `group:"behaviour" default:"15s" placeholder:"TIME" help:"How long a disturbed path is before it is an alert."`
	AskAfter         time.Duration `group:"behaviour" default:"30s" placeholder:"TIME" help:"How long a source stays changed before an operator is asked. No further key is changed for it."`
	HoldUnresolved   bool          `group:"behaviour" help:"Hold a stream whose source stays changed, from the moment that an operator is asked until the evidence ends or he says that the source changed. What viewers see meanwhile is on-hold."`

	AnnouncedChanges int `group:"behaviour" default:"6" placeholder:"N" help:"How many times an hour a device may announce that it began the encoder that it runs itself anew. What comes back as it was, or as a regime known by the announced name, is then no question to an operator; anything else is, as ever. 0: announcements of devices are ignored."`

	FalseRotationEvery time.Duration `group:"behaviour" default:"24h" placeholder:"TIME" help:"Budget: one key change for nothing is borne in this time, for each stream. Thresholds are tuned so that it is kept; and evidence about a source, less what turned out to be real, changes no key more than twice in twice this time (three times in three times, where it is under 12 hours)."`
	MissCost           float64       `group:"behaviour" default:"20" placeholder:"N" help:"A theft that is missed is as bad as so many key changes for nothing."`
	AutoTune           bool          `group:"behaviour" default:"true" negatable:"" help:"Take the thresholds that the system itself proposes, where an operator does not say otherwise for a stream."`
	TuneEvery          time.Duration `group:"behaviour" default:"24h" placeholder:"TIME" help:"Time between two searches for better thresholds of a stream; 0: only when asked."`
	ShadowFor          time.Duration `group:"behaviour" default:"10m" placeholder:"TIME" help:"How long it is counted what a new threshold would do before it decides."`
	WatchFor           time.Duration `group:"behaviour" default:"24h" placeholder:"TIME" help:"How long a new threshold is taken back by itself when it alarms more than was expected."`
	ScoreHistory       time.Duration `group:"behaviour" default:"24h" placeholder:"TIME" help:"How much of what detectors said is kept of every stream, encrypted, at most 5.5 MB a day; 0: nothing, and then nothing is tuned by it."`

	EpisodeContext time.Duration `group:"behaviour" default:"30s" placeholder:"TIME" help:"For how long before and after every alert about a source its windows are kept, encrypted: they are judged anew when its profile or the detectors change, from 20s on, and alerts show --windows prints them. 0: none are kept. It needs score-history."`
	EpisodesKept   int           `group:"behaviour" default:"64" placeholder:"N" help:"Of so many alerts of a stream at most; the oldest go first, those that nobody spoke of before the others."`
	EpisodeStore   Size          `group:"behaviour" default:"4MiB" placeholder:"SIZE" help:"And so much of a stream at most. An alert of 10 s takes about 40 kB."`

	Latency     time.Duration `group:"media" default:"120ms" placeholder:"TIME" help:"Longest wait for a missing packet before the ones behind it are delivered."`
	MediaBuffer Size          `group:"media" default:"8MiB" placeholder:"SIZE" help:"Receive buffer to ask the kernel for, on the media socket."`
	OnHold      string        `group:"media" default:"pass" enum:"pass,freeze,slate,stop" placeholder:"DO" help:"What viewers and outputs get of a stream that is held: pass (the stream), freeze (nothing new; connections stay), slate (the clip named by slate), or stop (viewers are cut off). A stream is held while a second session of its device insists, and by hold-unresolved."`
	Slate       string        `group:"media" type:"path" placeholder:"FILE" help:"MPEG-TS clip to show in place of a held stream, over and over, with on-hold: slate."`
	Output      []string      `group:"media" sep:"none" placeholder:"[STREAM=]URL" help:"Where to send a decrypted stream besides HTTP: udp://, rtp:// or file:. {stream} in the URL stands for the stream's name. Repeatable."`

	TokenLife time.Duration `group:"devices" default:"1h" placeholder:"TIME" help:"How long a join token may be used."`

	AuditExport string `group:"logging" type:"path" placeholder:"FILE" help:"File to which the signed heads of the audit trail are appended, one a minute: best on another machine or on storage that is written once. Empty: the file audit-heads.jsonl in the data directory."`

	LogLevel  string `group:"logging" default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"Least severe message to log: debug, info, warn or error."`
	LogFormat string `group:"logging" default:"text" enum:"text,json" placeholder:"FORMAT" help:"Form of log lines: text or json."`
}

// transportID is the instance's name in the type that subjects are made of.
func (c Config) transportID() gk.TransportID { return gk.TransportID(c.ID) }

// DefaultConfig is what holds when nobody says anything.
func DefaultConfig() (Config, error) {
	var cfg Config
	k, err := kong.New(&cfg, kong.Vars{"data_dir": DefaultDataDir()})
	if err == nil {
		_, err = k.Parse(nil)
	}
	return cfg, err
}

// DefaultDataDir is where the data is kept when nobody says otherwise:
// .gaitkeeper in the home directory.
func DefaultDataDir() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ".gaitkeeper"
	}
	return filepath.Join(home, ".gaitkeeper")
}

// Check says what is wrong with the values as a whole, with the name of the
// setting to mend.
func (c Config) Check() error {
	for _, a := range []struct{ name, value string }{
		{"listen", c.Listen}, {"join-listen", c.JoinListen}, {"mqtt-listen", c.MQTTListen}, {"media-listen", c.MediaListen},
	} {
		if _, _, err := net.SplitHostPort(a.value); err != nil {
			return fmt.Errorf("%s: %q is not host:port: write for example 127.0.0.1:8080", a.name, a.value)
		}
	}
	if strings.ContainsAny(c.Advertise, ":/ ") && net.ParseIP(c.Advertise) == nil || c.Advertise == "" {
		return fmt.Errorf("advertise: %q is not a host name or address (without port)", c.Advertise)
	}
	for _, d := range []struct {
		name       string
		value      time.Duration
		least, max time.Duration
	}{
		{"rotate-every", c.RotateEvery, 10 * time.Millisecond, 365 * 24 * time.Hour},
		{"latency", c.Latency, 0, 10 * time.Second},
		{"lease", c.Lease, 5 * time.Second, 10 * time.Minute},
		{"urgent-refill", c.UrgentRefill, time.Second, 365 * 24 * time.Hour},
		{"site-urgent-refill", c.SiteUrgentRefill, time.Millisecond, 365 * 24 * time.Hour},
		{"token-life", c.TokenLife, time.Second, 7 * 24 * time.Hour},
		{"learn-for", c.LearnFor, 5 * time.Second, 24 * time.Hour},
		{"provisional-after", c.ProvisionalAfter, 5 * time.Second, 24 * time.Hour},
		{"probation", c.Probation, 0, 24 * time.Hour},
		{"path-alert-after", c.PathAlertAfter, 0, time.Hour},
		{"ask-after", c.AskAfter, time.Second, time.Hour},
		{"false-rotation-every", c.FalseRotationEvery, time.Minute, 365 * 24 * time.Hour},
		{"tune-every", c.TuneEvery, 0, 365 * 24 * time.Hour},
		{"shadow-for", c.ShadowFor, 0, 24 * time.Hour},
		{"watch-for", c.WatchFor, 0, 30 * 24 * time.Hour},
		{"score-history", c.ScoreHistory, 0, 14 * 24 * time.Hour},
		{"episode-context", c.EpisodeContext, 0, 2 * time.Minute},
	} {
		if d.value < d.least || d.value > d.max {
			return fmt.Errorf("%s: %v is out of range: choose %v to %v", d.name, d.value, d.least, d.max)
		}
	}
	if c.EpisodesKept < 1 || c.EpisodesKept > 1000 {
		return fmt.Errorf("episodes-kept: %d is out of range: choose 1 to 1000; with episode-context: 0 none are kept", c.EpisodesKept)
	}
	if c.EpisodeStore < 64<<10 || c.EpisodeStore > 1<<30 {
		return fmt.Errorf("episode-store: %v is out of range: choose 64KiB to 1GiB", c.EpisodeStore)
	}
	if c.RotatePackets < 1 || c.RotatePackets > 1<<32 {
		return fmt.Errorf("rotate-packets: %d is out of range: choose 1 to %d", c.RotatePackets, uint64(1)<<32)
	}
	if c.MinVersion > uint8(gkrp.CurrentVersion) {
		return fmt.Errorf("min-protocol-version: %d is not spoken here: choose %d to %d", c.MinVersion, gkrp.MinVersion, gkrp.CurrentVersion)
	}
	for name, n := range map[string]int{"urgent-rotations": c.UrgentRotations, "site-urgent-rotations": c.SiteUrgentRotations} {
		if n < 1 || n > 1_000_000 {
			return fmt.Errorf("%s: %d is out of range: choose 1 to 1000000", name, n)
		}
	}
	if c.AnnouncedChanges < 0 || c.AnnouncedChanges > 60 {
		return fmt.Errorf("announced-changes: %d is out of range: choose 0 to 60", c.AnnouncedChanges)
	}
	if err := c.checkHold(); err != nil {
		return err
	}
	if !(c.MissCost >= 0 && c.MissCost <= 1e6) { // nor NaN, which no comparison finds
		return fmt.Errorf("miss-cost: %g is out of range: choose 0 to 1000000", c.MissCost)
	}
	if !(c.Sensitivity > 0 && c.Sensitivity <= 1) {
		return fmt.Errorf("sensitivity: %g is out of range: choose above 0 to 1", c.Sensitivity)
	}
	if _, err := gk.ParseTransportID(c.ID); err != nil {
		return fmt.Errorf("id: %w", err)
	}
	if err := c.checkMQTT(); err != nil {
		return err
	}
	return c.checkRoles()
}
