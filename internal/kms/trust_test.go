package kms

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// A certificate says one role of its holder: with two it would be taken for the first.
func TestCertificateOfTwoRolesIsNobodys(t *testing.T) {
	s := newSite(t, store.NewMemory())
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := func(role string) *url.URL { return &url.URL{Scheme: "gaitkeeper", Opaque: role + "/x"} }
	for want, uris := range map[bool][]*url.URL{true: {name(roleTransport)}, false: {name(roleTransport), name(roleProcessing)}} {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(1), URIs: uris, NotBefore: validFrom, NotAfter: time.Now().Add(time.Hour),
		}, s.ca.cert, public, s.ca)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.ca.verify(der, roleTransport, time.Now()); (err == nil) != want {
			t.Errorf("%d roles: %v", len(uris), err)
		}
	}
}

// A transport that was verified once is believed as long as its certificate lives.
func TestVerifiedTransportExpires(t *testing.T) {
	s := newSite(t, store.NewMemory())
	tr := s.newRelay("t-1")
	now := time.Now()
	for range 2 {
		if _, err := s.checkTransport(tr.word, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.checkTransport(tr.word, now.Add(serviceLife+time.Hour)); err == nil {
		t.Error("believed after its certificate's end")
	}
}

// The stream has another device now: sessions of the one before it are in nobody's standing.
func TestStandingOfAnothersSession(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1", "stage")
	s.mustOpen(c, "stage", sid(1), 0)
	s.enrolled("cam-1")
	s.enrolled("cam-2", "stage")
	if got := s.codes(t, bus.SessionRef{Device: "cam-2", Stream: "stage", Session: sid(1)}); !slices.Equal(got, []bus.Code{bus.CodeNotFound}) {
		t.Errorf("%q", got)
	}
}
