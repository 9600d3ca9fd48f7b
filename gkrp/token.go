package gkrp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// tokenPrefix tells a join token, and its version, from any other text.
const tokenPrefix = "gkj1."

// ErrToken is wrapped by every error of [ParseJoinToken].
var ErrToken = errors.New("join token is not usable")

// JoinToken is what an operator hands to a new device: where to join, whom to
// trust there, and a secret that works once.
type JoinToken struct {
	Address       string      `cbor:"1,keyasint"` // host:port of the join endpoint, HTTPS
	CAFingerprint [32]byte    `cbor:"2,keyasint"` // SHA-256 of the CA certificate's DER form
	Device        gk.DeviceID `cbor:"3,keyasint"`
	Secret        []byte      `cbor:"4,keyasint"` // 16 random bytes
	Expires       time.Time   `cbor:"5,keyasint"`
}

// Text gives the token as one word. It holds the secret: print it only to the
// operator who asked for it.
func (t JoinToken) Text() string {
	b, err := encMode.Marshal(t)
	if err != nil {
		panic(err) // a fixed structure of plain types always encodes
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// Format keeps the secret out of logs and errors.
func (t JoinToken) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "join token for %s at %s", t.Device, t.Address)
}

// ParseJoinToken reads what [JoinToken.Text] writes.
func ParseJoinToken(text string) (JoinToken, error) {
	var t JoinToken
	body, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return t, fmt.Errorf("%w: it does not begin with %s: copy the whole word that gaitkeeper enroll printed", ErrToken, tokenPrefix)
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err == nil {
		err = decMode.Unmarshal(b, &t)
	}
	if err != nil || len(t.Secret) != 16 || t.Address == "" {
		return JoinToken{}, fmt.Errorf("%w: it is damaged or cut short: copy the whole word that gaitkeeper enroll printed", ErrToken)
	}
	if _, err := gk.ParseDeviceID(string(t.Device)); err != nil {
		return JoinToken{}, errors.Join(ErrToken, err)
	}
	return t, nil
}
