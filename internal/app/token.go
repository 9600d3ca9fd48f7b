package app

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tokenFile holds the API's bearer token, readable by the owner of the data
// directory alone.
const tokenFile = "api-token"

// ReadAPIToken reads the token that `gaitkeeper serve` made in its data
// directory.
func ReadAPIToken(dataDir string) (string, error) {
	path := filepath.Join(dataDir, tokenFile)
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s is not there: is %s the data directory of a gaitkeeper serve that has started? choose another with --data, or give the token in GAITKEEPER_TOKEN", path, dataDir)
	case err != nil:
		return "", fmt.Errorf("API token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// apiTokenHash gives the SHA-256 of the token, and makes the token first where
// there is none. The token itself is not kept.
func apiTokenHash(d *dataDir) ([sha256.Size]byte, error) {
	path := d.file(tokenFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.WriteString(rand.Text() + "\n")
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return [sha256.Size]byte{}, fmt.Errorf("API token: %w", err)
	}
	token, err := ReadAPIToken(d.path)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	if len(token) < 16 {
		return [sha256.Size]byte{}, fmt.Errorf("API token: %s is empty or cut short: remove it, and a new one is made", path)
	}
	return sha256.Sum256([]byte(token)), nil
}
