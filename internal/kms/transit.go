package kms

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/tink-crypto/tink-go-hcvault/v2/integration/hcvault"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// VaultScheme begins the URI of a key of a transit engine of Vault or OpenBao:
// vault:https://HOST[:PORT]/MOUNT/keys/NAME.
const VaultScheme = "vault:"

// transitTimeout is for one answer, where VAULT_CLIENT_TIMEOUT does not say otherwise.
const transitTimeout = 10 * time.Second

// transit is Tink's AEAD over a transit engine, with errors that say what to do.
// Associated data goes as associated_data, which Vault knows since 1.12 and binds
// for the key types aes128-gcm96, aes256-gcm96 and chacha20-poly1305.
type transit struct {
	aead  tink.AEAD
	token string
	mount string // without slashes around it
	name  string
}

// openTransit makes a client; nothing is asked yet. Address and token are ours; CA,
// client certificate, namespace and the like come from the variables that Vault's
// own tools read.
func openTransit(k KEK) (tink.AEAD, error) {
	t := transit{}
	address, err := t.parse(k.URI)
	if err != nil {
		return nil, err
	}
	if !k.Passphrase.IsZero() {
		return nil, fmt.Errorf("key-encryption key %q has no passphrase, key files have: leave kek-passphrase-file out", k.URI)
	}
	k.Token.Expose(func(b []byte) { t.token = string(b) })
	if t.token == "" {
		return nil, fmt.Errorf("key-encryption key %q needs a token: set VAULT_TOKEN, or name a file with kek-token-file", k.URI)
	}
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, fmt.Errorf("Vault's variables in the environment (VAULT_CACERT and so on): %w", cfg.Error)
	}
	if tr, ok := cfg.HttpClient.Transport.(*http.Transport); !ok || tr.TLSClientConfig.InsecureSkipVerify {
		return nil, errors.New("VAULT_SKIP_VERIFY is set, so that anybody could answer as Vault: unset it, and name Vault's CA with VAULT_CACERT")
	}
	cfg.Address, cfg.AgentAddress = address, ""
	if os.Getenv(api.EnvVaultClientTimeout) == "" {
		cfg.Timeout = transitTimeout
	}
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %q: %w", k.URI, err)
	}
	client.SetToken(t.token)
	t.aead, err = hcvault.NewAEAD("/"+t.mount+"/keys/"+t.name, client.Logical())
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %q: %w", k.URI, err)
	}
	return t, nil
}

// parse takes a URI apart and gives the server's address. It repeats nothing of a
// URI that may hold a password.
func (t *transit) parse(uri string) (address string, err error) {
	u, err := url.Parse(strings.TrimPrefix(uri, VaultScheme))
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" || u.RawPath != "" {
		return "", fmt.Errorf("the key-encryption key's URI is not of the form %shttps://HOST[:PORT]/MOUNT/keys/NAME; a token belongs in VAULT_TOKEN or kek-token-file", VaultScheme)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme != "http":
		return "", fmt.Errorf("key-encryption key %q: scheme %q is not known: write %shttps://…", uri, u.Scheme, VaultScheme)
	case !loopback(u.Hostname()):
		return "", fmt.Errorf("key-encryption key %q: without TLS the token and the data-encryption key cross the network in the clear: write %shttps://…", uri, VaultScheme)
	}
	mount, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/keys/")
	if !ok || mount == "" || name == "" || strings.Contains(name, "/") || strings.Contains(u.Path, "..") {
		return "", fmt.Errorf("key-encryption key %q names no key: write %shttps://%s/MOUNT/keys/NAME, where MOUNT is mostly transit", uri, VaultScheme, u.Host)
	}
	t.mount, t.name = mount, name
	return u.Scheme + "://" + u.Host, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (t transit) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	b, err := t.aead.Encrypt(plaintext, associatedData)
	if err != nil {
		return nil, t.explain("encrypt", err, plaintext)
	}
	return b, nil
}

func (t transit) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	b, err := t.aead.Decrypt(ciphertext, associatedData)
	if err != nil {
		return nil, t.explain("decrypt", err, nil)
	}
	return b, nil
}

// explain says what to do about an error. What the server says is repeated without
// the token and without what it was sent to encrypt.
func (t transit) explain(op string, err error, plaintext []byte) error {
	path := t.mount + "/" + op + "/" + t.name
	var r *api.ResponseError
	if !errors.As(err, &r) {
		return fmt.Errorf("Vault did not answer to %s: is the address right, does it run, and is its CA the one in VAULT_CACERT: %s", path, t.scrub(err.Error(), plaintext))
	}
	said := t.scrub(strings.Join(r.Errors, "; "), plaintext)
	switch {
	case r.StatusCode == http.StatusForbidden:
		return fmt.Errorf("Vault refuses the token for %s (%s): it is wrong or has expired, or its policy does not allow update there: give another with kek-token-file or VAULT_TOKEN, or mend the policy", path, said)
	case r.StatusCode == http.StatusNotFound:
		return fmt.Errorf("Vault has no transit engine for %s (%s): mend the URI's mount, or VAULT_NAMESPACE", path, said)
	case r.StatusCode == http.StatusServiceUnavailable:
		return fmt.Errorf("Vault is sealed or being maintained (%s): unseal it", said)
	}
	return fmt.Errorf("Vault's answer to %s is %d: %s", path, r.StatusCode, said)
}

// scrub takes secrets out of a text.
func (t transit) scrub(text string, plaintext []byte) string {
	secrets := []string{t.token}
	if len(plaintext) > 0 {
		secrets = append(secrets, string(plaintext), base64.StdEncoding.EncodeToString(plaintext))
	}
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, "(secret)")
	}
	return text
}
