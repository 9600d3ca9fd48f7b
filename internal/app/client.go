package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// What a running server leaves in its data directory for operators on the same
// machine: nothing of it is secret.
const (
	urlFile = "api-url"
	caFile  = "ca.pem"
)

const (
	clientTimeout   = 30 * time.Second
	maxClientAnswer = 16 << 20
)

// ClientConfig says which server an operator's command talks to.
type ClientConfig struct {
	Data   string // data directory, for what is not given
	Server string // URL; empty: that of the server of the data directory
	Token  string // empty: from the data directory
	CA     string // PEM file; empty: from the data directory, if there
	// Timeout is how long an answer may take; 0: half a minute.
	Timeout time.Duration
}

// Client asks a running server over its API.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient finds address, token and CA of the server.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Server == "" {
		b, err := os.ReadFile(filepath.Join(cfg.Data, urlFile))
		if err != nil {
			return nil, fmt.Errorf("no gaitkeeper serve has run with the data directory %s: choose another with --data, or name the server with --server", cfg.Data)
		}
		cfg.Server = strings.TrimSpace(string(b))
	}
	if cfg.Token == "" {
		var err error
		if cfg.Token, err = ReadAPIToken(cfg.Data); err != nil {
			return nil, err
		}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	path := cfg.CA
	if path == "" {
		path = filepath.Join(cfg.Data, caFile)
	}
	pem, err := os.ReadFile(path)
	switch {
	case err == nil:
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	case cfg.CA != "" || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	return &Client{
		base:  strings.TrimSuffix(cfg.Server, "/"),
		token: cfg.Token,
		http:  &http.Client{Transport: transport, Timeout: cmp.Or(cfg.Timeout, clientTimeout)},
	}, nil
}

// Do sends a request and decodes the answer into out. A refusal comes back as a
// [*bus.Refusal].
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("server address %q: %w", c.base, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("server cannot be reached: %w: is gaitkeeper serve running?", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxClientAnswer))
	if err != nil {
		return fmt.Errorf("answer of %s: %w", c.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		var refusal bus.Refusal
		if json.Unmarshal(b, &refusal) == nil && refusal.Text != "" {
			return &refusal
		}
		return fmt.Errorf("%s answers %s %s with %s: is it a gaitkeeper of this version?", c.base, method, path, resp.Status)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("answer of %s: %w", c.base, err)
	}
	return nil
}
