package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// The token that the operator gets and what the key management service is told
// belong together, and the second does not lead to the first.
func TestTokenSecretStaysHere(t *testing.T) {
	s := newSystem(t, nil)
	var secrets [][]byte
	for range 2 {
		status, body := s.do(t, "POST", "/v1/enroll", `{"device":"cam-1"}`)
		var answer struct{ Token string }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 {
			t.Fatal(status, body, err)
		}
		token, err := gkrp.ParseJoinToken(answer.Token)
		if err != nil {
			t.Fatal(err)
		}
		if token.Address != "join.example:8843" || token.Device != "cam-1" || token.Expires.Unix() != 1e9 {
			t.Errorf("token %v, expires %v", token, token.Expires)
		}
		if hash := sha256.Sum256(token.Secret); !bytes.Equal(s.enrolled[len(s.enrolled)-1].Hash, hash[:]) {
			t.Error("the hash told is not that of the secret")
		}
		secrets = append(secrets, token.Secret)
	}
	if bytes.Equal(secrets[0], secrets[1]) {
		t.Error("two tokens have one secret")
	}
	open := newSystem(t, func(c *Config) { c.JoinAddress = "" })
	if status, body := open.do(t, "POST", "/v1/enroll", `{"device":"cam-1"}`); status != 400 {
		t.Errorf("without an address: %d %s", status, body)
	}
}
