package main

import (
	"context"

	"github.com/gaitkeeper/gaitkeeper/internal/app"
)

type serveCommand struct {
	app.Config
}

func (c *serveCommand) Run(ctx context.Context, con console) error {
	log := app.NewLogger(con.err, c.LogLevel, c.LogFormat)
	node, err := app.Start(ctx, c.Config, app.Options{Log: log, Version: buildVersion()})
	if err != nil {
		return err
	}
	log.Info("ready", node.Places()...)
	err = node.Run(ctx)
	log.Info("stopped")
	return err
}
