package app

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// verdict is the worst finding of a check.
func verdict(findings []Finding, check string) Finding {
	worst := Finding{Check: check}
	rank := map[Verdict]int{Fine: 1, Warning: 2, Failure: 3}
	for _, f := range findings {
		if f.Check == check && rank[f.Verdict] > rank[worst.Verdict] {
			worst = f
		}
	}
	return worst
}

func wantVerdict(t *testing.T, findings []Finding, check string, v Verdict, says string) {
	t.Helper()
	f := verdict(findings, check)
	if f.Verdict != v || !strings.Contains(f.Found+" → "+f.Mend, says) {
		t.Errorf("%s: %s %q → %q, want %s with %q", check, f.Verdict, f.Found, f.Mend, v, says)
	}
	if f.Verdict != Fine && f.Mend == "" {
		t.Errorf("%s: %q names no mend", check, f.Found)
	}
}

func TestDoctorOfASoundDeployment(t *testing.T) {
	cfg := testConfig(t)
	if err := os.Chmod(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	before := Diagnose(t.Context(), cfg)
	for _, check := range []string{"settings", "data directory", "secrets", "server", "ports", "certificates", "advertised address"} {
		wantVerdict(t, before, check, Fine, "")
	}
	if left, err := os.ReadDir(cfg.Data); err != nil || len(left) != 0 {
		t.Errorf("the doctor left %v in the data directory (%v)", left, err)
	}
	startNode(t, cfg, slog.New(slog.DiscardHandler))
	during := Diagnose(t.Context(), cfg)
	wantVerdict(t, during, "server", Fine, "is ready")
	wantVerdict(t, during, "ports", Fine, "by the server that runs")
	wantVerdict(t, during, "secrets", Fine, "")
	wantVerdict(t, during, "certificates", Fine, "1 in files")
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	cfg := testConfig(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg.Listen, cfg.JoinListen = taken.Addr().String(), "0.0.0.0:0"
	cfg.MQTTBroker, cfg.MQTTCA = "mqtts://127.0.0.1:1", filepath.Join(cfg.Data, "broker-ca.pem")
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	old := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, old, old, public, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"broker-ca.pem": certificatePEM(der), "kek": []byte("open")} {
		if err := os.WriteFile(filepath.Join(cfg.Data, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(cfg.Data, 0o755); err != nil {
		t.Fatal(err)
	}
	findings := Diagnose(t.Context(), cfg)
	wantVerdict(t, findings, "ports", Failure, "--listen")
	wantVerdict(t, findings, "data directory", Warning, "chmod 700")
	wantVerdict(t, findings, "secrets", Failure, "chmod 600")
	wantVerdict(t, findings, "certificates", Failure, "ended on")
	wantVerdict(t, findings, "MQTT broker", Failure, "--mqtt-broker")
	wantVerdict(t, findings, "advertised address", Warning, "--advertise")

	cfg.Sensitivity = 7
	wantVerdict(t, Diagnose(t.Context(), cfg), "settings", Failure, "sensitivity")
}

func TestDoctorOfABus(t *testing.T) {
	b := newTestBus(t, "main=kms,api", "p1=processing")
	cfg := testConfig(t)
	cfg.ID, cfg.Roles, cfg.MQTTBroker = "main", []string{roleKMS, roleAPI}, "10.0.0.1:8883"
	cfg.Bus, cfg.BusCredentials = "nats://"+b.addr, filepath.Join(b.dir, "process-main")
	wantVerdict(t, Diagnose(t.Context(), cfg), "bus", Fine, "1 of 1 servers")

	nobody, _ := freeTCP(t)
	cfg.Bus = "nats://" + b.addr + "," + nobody
	wantVerdict(t, Diagnose(t.Context(), cfg), "bus", Failure, nobody)
	cfg.Bus, cfg.BusCredentials = "nats://"+b.addr, filepath.Join(b.dir, "process-p1")
	wantVerdict(t, Diagnose(t.Context(), cfg), "bus", Failure, "bus-setup")

	if !older("2.10.29", leastNATS) || older("2.11.0", leastNATS) || older("2.15.2", leastNATS) || older("3.0.0-beta", leastNATS) {
		t.Error("versions are compared wrongly")
	}
}
