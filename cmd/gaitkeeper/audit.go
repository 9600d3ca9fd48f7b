package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/app"
)

type auditCommand struct {
	Verify auditVerifyCommand `cmd:"" help:"Check that nothing was changed in the audit trail, added to it or taken out of it."`
}

type auditVerifyCommand struct {
	File  string `arg:"" optional:"" type:"path" help:"The trail; without it, the one in the data directory."`
	Data  string `type:"path" default:"${data_dir}" placeholder:"DIR" help:"Data directory of the server, for what is not named."`
	Heads string `type:"path" placeholder:"FILE" help:"Signed heads: the file that the server's audit-export names, best a copy from elsewhere."`
	Key   string `type:"path" placeholder:"FILE" help:"Public key of the key management service in PEM form, best a copy from elsewhere, instead of kms-key.pem in the data directory."`
	JSON  bool   `name:"json" help:"Print JSON."`
}

// Run exits with an error that names the first line that does not hold.
func (c *auditVerifyCommand) Run(con console) error {
	rep, err := app.VerifyAudit(app.AuditFiles{Trail: c.File, Heads: c.Heads, Key: c.Key}.In(c.Data))
	var fault *app.AuditFault
	if c.JSON && (err == nil || errors.As(err, &fault)) {
		return errors.Join(printJSON(con.out, struct {
			OK bool `json:"ok"`
			app.AuditReport
			Fault *app.AuditFault `json:"fault,omitempty"`
		}{err == nil, rep, fault}), err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(con.out, "%d lines, %s to %s: the chain holds\n", rep.Lines, day(rep.From), day(rep.To))
	if rep.Heads == 0 {
		fmt.Fprintln(con.out, "no head of it is signed yet: the first is within seconds of the server's start")
		return nil
	}
	fmt.Fprintf(con.out, "%d signed heads, the last over line %d at %s; the %d lines after it are not signed yet\n", rep.Heads, rep.Signed, day(rep.SignedAt), rep.Lines-rep.Signed)
	return nil
}

func day(t time.Time) string { return t.Local().Format(time.DateTime) }
