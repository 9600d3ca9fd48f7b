package main

import (
	"context"

	"github.com/gaitkeeper/gaitkeeper/internal/device"
)

type deviceCommand struct {
	device.Command
}

func (c *deviceCommand) Run(ctx context.Context, con console) error {
	return c.Command.Run(ctx, device.Std{In: con.in, Out: con.out, Err: con.err}, "gaitkeeper "+buildVersion())
}
