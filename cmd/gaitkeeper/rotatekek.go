package main

import (
	"context"
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/app"
)

type rotateKEKCommand struct {
	app.Config
	To           string `required:"" placeholder:"URI" help:"The new key, as for --kek. A key file that does not exist is made."`
	ToPassphrase string `name:"to-passphrase-file" type:"path" placeholder:"FILE" help:"File whose first line is the passphrase of the new key file."`
	ToToken      string `name:"to-token-file" type:"path" placeholder:"FILE" help:"File whose first line is the token for the new key in Vault, mode 0600. Empty: the variable VAULT_TOKEN."`
}

// Run takes the present key from the settings of serve.
func (c *rotateKEKCommand) Run(ctx context.Context, con console) error {
	to := app.KEK{URI: c.To, PassphraseFile: c.ToPassphrase, TokenFile: c.ToToken}
	was, is, err := app.RotateKEK(ctx, c.Config, to, app.Options{Log: app.NewLogger(con.err, "error", c.LogFormat), Version: buildVersion()})
	if err != nil {
		return err
	}
	settings := "kek: " + is
	if c.ToPassphrase != "" {
		settings += ", kek-passphrase-file: " + c.ToPassphrase
	}
	if c.ToToken != "" {
		settings += ", kek-token-file: " + c.ToToken
	}
	fmt.Fprintf(con.out, "the key store is wrapped with %s (before: %s)\n", is, was)
	fmt.Fprintf(con.err, "Set this before the next start of any key management service: %s\nDestroy the old key when no backup needs it any more.\n", settings)
	return nil
}
