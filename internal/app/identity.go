package app

import (
	"crypto/x509"
	"errors"
	"strings"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// identityScheme begins the URI in a certificate's subject alternative names
// that says who its holder is: gaitkeeper:device/cam-1.
const identityScheme = "gaitkeeper"

// identityOf reads role and id from a certificate that was verified already.
// Exactly one identity is accepted, and one that could pass as another's part of
// a topic is not.
func identityOf(cert *x509.Certificate) (role, id string, err error) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != identityScheme {
		return "", "", errors.New("certificate does not name exactly one gaitkeeper identity")
	}
	role, id, ok := strings.Cut(cert.URIs[0].Opaque, "/")
	if !ok {
		return "", "", errors.New("certificate's identity is not role/id")
	}
	if _, err := gk.ParseDeviceID(id); err != nil {
		return "", "", err
	}
	return role, id, nil
}
