package bus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseBroker(t *testing.T) {
	for text, want := range map[string]Broker{
		"mqtts://broker.example":      {Address: "broker.example:8883", Foreign: true},
		"mqtts://broker.example:1234": {Address: "broker.example:1234", Foreign: true},
		"mqtts://[2001:db8::1]/":      {Address: "[2001:db8::1]:8883", Foreign: true},
		"mqtt://127.0.0.1":            {Address: "127.0.0.1:1883", Foreign: true, Plain: true},
		"mqtt://localhost:7":          {Address: "localhost:7", Foreign: true, Plain: true},
		"10.0.0.1:8883":               {Address: "10.0.0.1:8883"},
	} {
		if b, err := ParseBroker(text); err != nil || b != want {
			t.Errorf("%s: %+v, %v", text, b, err)
		}
	}
	for text, says := range map[string]string{
		"":                           "not host:port",
		"broker.example":             "not host:port",
		"mqtts://":                   "not host:port",
		"mqtts://:8883":              "not host:port",
		"mqtts://a:99999":            "port",
		"mqtt://broker.example":      "without TLS",
		"https://broker.example":     "scheme",
		"mqtts://u:secret@b.example": "--mqtt-password-file",
		"mqtts://b.example/topic":    "behind the port",
		"mqtts://" + strings.Repeat("a", 400) + ":1": "at most",
	} {
		_, err := ParseBroker(text)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.40s: %v, want an error with %q", text, err, says)
		}
	}
}

func TestFilesOfBrokersNameTheirSetting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("\r\nsecond"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecretLine("mqtt-password-file", file); err == nil || !strings.Contains(err.Error(), "mqtt-password-file") {
		t.Errorf("an empty password: %v", err)
	}
	if _, err := ReadCAFile("mqtt-ca", file); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("no certificate: %v", err)
	}
	if _, err := ReadCAFile("mqtt-ca", file+"x"); err == nil || !strings.Contains(err.Error(), "mqtt-ca") {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParseBroker(f *testing.F) {
	f.Add("mqtts://broker.example:8883")
	f.Add("10.0.0.1:8883")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBroker(text)
		if err == nil && checkAddress(b.Address) != nil {
			t.Errorf("%q was read as %q", text, b.Address)
		}
	})
}
