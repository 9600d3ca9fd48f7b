package app

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/audit"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// The files of the audit trail in the data directory. kmsKeyFile is whom to
// believe; who keeps a copy of it, and of the heads, elsewhere can verify what
// this machine says without believing this machine.
const (
	auditFile  = "audit.jsonl"
	headsFile  = "audit-heads.jsonl"
	kmsKeyFile = "kms-key.pem"
)

// AuditFiles says what to verify.
type AuditFiles struct {
	Trail string
	Heads string
	Key   string // PEM, the key management service's public key
}

// In fills the names that are empty with those of a data directory.
func (f AuditFiles) In(dataDir string) AuditFiles {
	for name, p := range map[string]*string{auditFile: &f.Trail, headsFile: &f.Heads, kmsKeyFile: &f.Key} {
		if *p == "" {
			*p = filepath.Join(dataDir, name)
		}
	}
	return f
}

// AuditReport is what a verified trail shows.
type AuditReport struct {
	Lines    uint64    `json:"lines"`
	From     time.Time `json:"from,omitzero"`
	To       time.Time `json:"to,omitzero"`
	Heads    int       `json:"heads"`            // signed heads of this trail
	Signed   uint64    `json:"signed_lines"`     // covered by the last of them
	SignedAt time.Time `json:"signed_at"`        // by the key management service's clock
	Partial  bool      `json:"partial,omitzero"` // the last line was being written
}

// AuditFault says where a trail first does not hold.
type AuditFault struct {
	File string `json:"file"`
	Line uint64 `json:"line"` // from 1
	Text string `json:"problem"`
}

func (f *AuditFault) Error() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text) }

// VerifyAudit checks the chain of a trail, the signatures of its heads, and that
// every line that was signed is there as it was then. The error is an
// [*AuditFault] where it is not.
func VerifyAudit(files AuditFiles) (AuditReport, error) {
	key, err := readKMSKey(files.Key)
	if err != nil {
		return AuditReport{}, err
	}
	heads, err := readHeads(files.Heads, key)
	if err != nil {
		return AuditReport{}, err
	}
	f, err := os.Open(files.Trail)
	if err != nil {
		return AuditReport{}, fmt.Errorf("audit trail: %w", err)
	}
	defer f.Close()
	return verifyTrail(files, f, heads)
}

func readKMSKey(path string) (ed25519.PublicKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key of the key management service: %w: gaitkeeper serve writes it; name a copy with --key", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key in PEM form", path)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := public.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s holds no Ed25519 public key", path)
	}
	return key, nil
}

// kmsKeyPEM is what readKMSKey reads.
func kmsKeyPEM(public []byte) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(public))
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

// readHeads checks signatures and serials.
func readHeads(path string, key ed25519.PublicKey) ([]headLine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("signed heads: %w: name the file with --heads", err)
	}
	defer f.Close()
	var heads []headLine
	lines := bufio.NewReader(f)
	for n := uint64(1); ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return heads, nil // what follows was being written
		}
		if err != nil {
			return nil, err
		}
		fault := func(format string, args ...any) error {
			return &AuditFault{path, n, fmt.Sprintf(format, args...)}
		}
		var l headLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fault("is no signed head: %v", err)
		}
		if !bytes.Equal(l.Key, key) {
			return nil, fault("is signed with another key than that of the key management service")
		}
		if !ed25519.Verify(key, bus.AuditHeadBytes(l.head(), l.Serial, l.At), l.Signature) {
			return nil, fault("its signature does not verify: it was changed")
		}
		if len(heads) > 0 {
			last := heads[len(heads)-1]
			if l.Serial != last.Serial+1 {
				return nil, fault("has serial %d after %d: lines are missing or out of order", l.Serial, last.Serial)
			}
		}
		heads = append(heads, l)
	}
}

// verifyTrail follows the chain with one line of foresight: a link that does not
// hold accuses one of two lines, and the line behind tells which.
func verifyTrail(files AuditFiles, trail io.Reader, heads []headLine) (AuditReport, error) {
	var rep AuditReport
	fault := func(line uint64, format string, args ...any) (AuditReport, error) {
		return rep, &AuditFault{files.Trail, line, fmt.Sprintf(format, args...)}
	}
	lines := bufio.NewReader(trail)
	read := func() ([]byte, bool, error) {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			rep.Partial = len(line) > 0
			return nil, false, nil
		}
		return bytes.TrimSuffix(line, []byte("\n")), err == nil, err
	}
	empty := sha256.Sum256(nil)
	previous := hex.EncodeToString(empty[:])
	line, more, err := read()
	for more && err == nil {
		n := rep.Lines + 1
		hash := sha256.Sum256(line)
		if n == 1 {
			if k := len(heads); k > 0 && !bytes.Equal(heads[k-1].Trail, hash[:]) {
				h := heads[k-1]
				return fault(n, "does not begin the trail that was signed last, which had %d lines at %s; a trail that has just begun is signed within seconds", h.Lines, h.At.Format(time.RFC3339))
			}
			heads = slices.DeleteFunc(heads, func(h headLine) bool { return !bytes.Equal(h.Trail, hash[:]) })
		}
		var next []byte
		var nextMore bool
		if next, nextMore, err = read(); err != nil {
			break
		}
		var rec, after audit.Record
		if err := json.Unmarshal(line, &rec); err != nil {
			return fault(n, "is no record of an audit trail: %v", err)
		}
		// Where the link to the line before does not hold, one of the two was
		// changed: not this one if what follows, or a signature, vouches for it.
		var vouched, accused bool
		if nextMore && json.Unmarshal(next, &after) == nil {
			vouched = after.Previous == hex.EncodeToString(hash[:])
			accused = !vouched
		}
		for _, h := range heads {
			if h.Lines > n {
				break
			}
			if h.Lines == n {
				vouched = bytes.Equal(h.Head, hash[:])
				accused = !vouched
			}
		}
		accused = accused || !vouched && rep.Signed == n-1
		switch {
		case rec.Number > n-1:
			return fault(n, "lines are missing before it: it is number %d, and number %d is due", rec.Number, n-1)
		case rec.Number < n-1:
			return fault(n, "is number %d once more: number %d is due", rec.Number, n-1)
		case rec.Previous != previous && n > 1 && !accused:
			return fault(n-1, "was changed: line %d was written behind another one", n)
		case rec.Previous != previous:
			return fault(n, "was changed: it does not follow the line before it")
		}
		for len(heads) > 0 && heads[0].Lines <= n {
			if h := heads[0]; h.Lines == n {
				if !bytes.Equal(h.Head, hash[:]) {
					return fault(n, "is not the line that was signed at %s: it was changed, or lines from %d on were written anew", h.At.Format(time.RFC3339), rep.Signed+1)
				}
				rep.Signed, rep.SignedAt = n, h.At
			}
			rep.Heads++
			heads = heads[1:]
		}
		if n == 1 {
			rep.From = rec.Event.At
		}
		rep.Lines, rep.To = n, rec.Event.At
		previous, line, more = hex.EncodeToString(hash[:]), next, nextMore
	}
	if err != nil {
		return rep, fmt.Errorf("audit trail: %w", err)
	}
	if len(heads) > 0 {
		h := heads[len(heads)-1]
		return fault(rep.Lines+1, "the end is missing: %d lines were signed at %s", h.Lines, h.At.Format(time.RFC3339))
	}
	return rep, nil
}
