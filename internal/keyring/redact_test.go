package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// pattern is a key whose every rendering can be recognised.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(0xA1 + i*7)
	}
	return b
}

// renderings lists the forms in which a leaked key could show.
func renderings(b []byte) map[string]string {
	dec := strings.Trim(fmt.Sprint(b[:8]), "[]")
	return map[string]string{
		"raw":       string(b[:8]),
		"hex":       hex.EncodeToString(b[:8]),
		"HEX":       strings.ToUpper(hex.EncodeToString(b[:8])),
		"base64":    base64.StdEncoding.EncodeToString(b)[:10],
		"base64url": base64.RawURLEncoding.EncodeToString(b)[:10],
		"decimal":   dec,
		"commas":    strings.ReplaceAll(dec, " ", ","),
		"go syntax": fmt.Sprintf("0x%x, 0x%x, 0x%x", b[0], b[1], b[2]),
		"quoted":    strings.Trim(fmt.Sprintf("%q", b[:8]), `"`),
	}
}

type holder struct {
	Key    MediaKey
	hidden MediaKey
	Ptr    *MediaKey
	Deep   struct{ Map map[string]MediaKey }
	List   []MediaKey
	Any    any
	Secret Secret
	secret *Secret
	Recv   ReceiverKey
}

type keyError struct{ K MediaKey }

func (e keyError) Error() string { return fmt.Sprintf("bad key %v", e.K) }

func TestSecretsNeverShow(t *testing.T) {
	raw := pattern(MediaKeySize)
	k, err := MediaKeyFromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	s := NewSecret(raw)
	h := holder{Key: k, hidden: k, Ptr: &k, List: []MediaKey{k}, Any: k, Secret: s, secret: &s}
	h.Deep.Map = map[string]MediaKey{"a": k}

	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%c", "%U", "%w", "%p", "%t", "%08b"} {
		for name, v := range map[string]any{"key": k, "key pointer": &k, "secret": s, "struct": h, "struct pointer": &h, "unexported": struct{ k MediaKey }{k}, "slice": []any{k, s}, "material": struct{ m *material }{k.m}} {
			out[verb+" "+name] = fmt.Errorf(verb, v).Error()
		}
	}
	out["println"] = fmt.Sprintln(k, s, h)
	out["error"] = fmt.Errorf("outer: %w", keyError{k}).Error()
	out["joined"] = errors.Join(keyError{k}, fmt.Errorf("%+v", h)).Error()
	out["stringer"] = k.String() + s.GoString()

	var buf bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&buf, nil), slog.NewJSONHandler(&buf, nil)} {
		log := slog.New(handler).With("with", k, "h", h)
		log.Info("m", "key", k, "ptr", &k, "secret", s, "struct", h, "p", &h, slog.Group("g", "key", k), "list", []MediaKey{k}, "err", keyError{k})
	}
	out["slog"] = buf.String()
	j, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out["json"] = string(j)
	m, err := json.Marshal(map[string]any{"k": k, "s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	out["json map"] = string(m)
	c, err := cbor.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out["cbor"] = string(c)
	out["recovered panic"] = func() (msg string) {
		defer func() { msg = fmt.Sprint(recover()) }()
		panic(k)
	}()

	for where, text := range out {
		for form, leak := range renderings(raw) {
			if strings.Contains(text, leak) {
				t.Errorf("%s shows the key as %s: %q", where, form, text)
			}
		}
	}
	for _, where := range []string{"%v key", "%#v secret", "%x key", "slog", "json", "cbor"} {
		if !strings.Contains(out[where], redacted) {
			t.Errorf("%s does not say %q: %q", where, redacted, out[where])
		}
	}
}

// The renderings must recognise a leak, or the test above proves nothing.
func TestRenderingsRecogniseALeak(t *testing.T) {
	raw := pattern(MediaKeySize)
	j, _ := json.Marshal(struct{ B []byte }{raw})
	for _, text := range []string{
		string(raw), fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), fmt.Sprintf("%v", raw),
		fmt.Sprintf("%#v", raw), fmt.Sprintf("%q", raw), string(j),
	} {
		found := false
		for _, leak := range renderings(raw) {
			found = found || strings.Contains(text, leak)
		}
		if !found {
			t.Errorf("no rendering matches %q", text)
		}
	}
}

func TestReceiverKeyNeverShows(t *testing.T) {
	r, err := GenerateReceiverKey(SuiteX25519)
	if err != nil {
		t.Fatal(err)
	}
	priv, err := r.p.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	j, _ := json.Marshal(holder{Recv: r})
	texts := []string{string(j)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%t"} {
		for _, v := range []any{r, &r, struct{ r ReceiverKey }{r}, struct{ R *ReceiverKey }{&r}, struct{ p *receiver }{r.p}} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
	}
	for _, text := range texts {
		for form, leak := range renderings(priv) {
			if strings.Contains(text, leak) {
				t.Errorf("private key shows as %s in %q", form, text)
			}
		}
	}
}
