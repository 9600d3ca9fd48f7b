package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// The one setting holds at both ends: what processing would let pass by mistake,
// the key management service does not seal.
func TestClassicalSuiteIsTheOperatorsChoice(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		cfg := testConfig(t)
		cfg.AllowX25519 = allowed
		n, _ := startNode(t, cfg, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		connect := func(role bus.Role) bus.Conn {
			nc, err := n.connect(role)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			return bus.NewNATS(nc)
		}
		api, processing := connect(bus.RoleAPI), connect(bus.RoleProcessing)
		secret := sha256.Sum256([]byte("hash of a secret"))
		if _, err := bus.KMSEnroll.Do(ctx, api, bus.EnrollRequest{Device: "cam-1", Hash: secret[:]}); err != nil {
			t.Fatal(err)
		}
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bus.KMSJoin.Do(ctx, api, bus.JoinRequest{Device: "cam-1", Hash: secret[:], CSR: csr}); err != nil {
			t.Fatal(err)
		}
		session := gk.SessionID{1}
		first, err := bus.KMSOpen.Do(ctx, processing, bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: session, SSRC: 7})
		if err != nil {
			t.Fatal(err)
		}
		signer, err := gkrp.NewSigner(private)
		if err != nil {
			t.Fatal(err)
		}
		key, err := keyring.GenerateReceiverKey(keyring.SuiteX25519)
		if err != nil {
			t.Fatal(err)
		}
		prekey, err := gkrp.SignPrekey(signer, []byte("cam-1"), &gkrp.Prekey{Device: "cam-1", Stream: "cam-1", Session: session, Suite: gkrp.SuiteX25519, Public: key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = bus.KMSRelease.Do(ctx, processing, bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: session, Epoch: first.Epoch, Prekey: prekey})
		switch {
		case allowed && err != nil:
			t.Errorf("allowed: %v", err)
		case !allowed && (bus.CodeOf(err) != bus.CodeBadRequest || !strings.Contains(err.Error(), "suite")):
			t.Errorf("not allowed: %v", err)
		}
	}
}
