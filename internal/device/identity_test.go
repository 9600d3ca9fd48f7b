package device

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// The device's private key stays out of whatever an identity is printed by, also where
// it is part of something else.
func TestIdentityIsNotPrinted(t *testing.T) {
	key := newWorld(t).deviceKey
	type holder struct{ Identity Identity }
	h := holder{Identity{Device: "cam-1", Key: key, Broker: "broker:8883"}}
	var out bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
		log.Info("identity", "own", h.Identity, "within", h, "pointer", &h)
	}
	fmt.Fprintf(&out, "%v %+v %#v %s %x %v", h.Identity, h, h, h.Identity, h.Identity, &h)
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	seed := key.Seed()
	for _, secret := range []string{string(seed), hex.EncodeToString(seed[:12]), base64.StdEncoding.EncodeToString(seed[:12]), strings.Trim(fmt.Sprint(seed[:8]), "[]")} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the private key is in %s", out.String())
		}
	}
}
