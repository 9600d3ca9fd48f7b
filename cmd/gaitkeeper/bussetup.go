package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/app"
)

type busSetupCommand struct {
	Dir     string   `arg:"" type:"path" help:"Directory to write to. The CA in it is kept, everything else is made anew."`
	Server  []string `required:"" sep:"none" placeholder:"HOST[:PORT[/CLUSTERPORT]]" help:"A NATS server, by the name that processes reach it by. Repeatable: several form a cluster."`
	Process []string `required:"" sep:"none" placeholder:"NAME=ROLE,ROLE" help:"A process: its --id and its --roles. Name all of them every time. Repeatable."`
	Install string   `default:"/etc/nats" placeholder:"DIR" help:"Directory that the files of a server are copied to there."`
	Store   string   `default:"/var/lib/nats" placeholder:"DIR" help:"Directory for the servers' state."`
}

// Run writes the files, and says where they belong.
func (c *busSetupCommand) Run(con console) error {
	if len(c.Server) == 2 {
		return errors.New("bus-setup: two servers are no better than one, because one of two is no majority: name one or three")
	}
	var servers []app.BusServer
	for _, text := range c.Server {
		s, err := app.ParseBusServer(text)
		if err != nil {
			return fmt.Errorf("bus-setup: %w", err)
		}
		s.Install, s.Store = c.Install, c.Store
		servers = append(servers, s)
	}
	var processes []app.BusProcess
	for _, text := range c.Process {
		p, err := app.ParseBusProcess(text)
		if err != nil {
			return fmt.Errorf("bus-setup: %w", err)
		}
		processes = append(processes, p)
	}
	if err := app.WriteBus(c.Dir, servers, processes, time.Now()); err != nil {
		return err
	}
	var hosts []string
	for _, s := range servers {
		fmt.Fprintf(con.out, "to %s: %s/server-%s/* to %s, then: nats-server -c %s/nats-server.conf\n", s.Host, c.Dir, s.Host, c.Install, c.Install)
		hosts = append(hosts, fmt.Sprintf("%s:%d", s.Host, s.Port))
	}
	for _, p := range processes {
		fmt.Fprintf(con.out, "to the machine of %s: %s/process-%s/* to ~/.gaitkeeper/bus, then: gaitkeeper serve --id %s --roles %s --bus nats://%s\n",
			p.ID, c.Dir, p.ID, p.ID, strings.Join(p.Roles, ","), strings.Join(hosts, ","))
	}
	fmt.Fprintf(con.err, "Keep %s/bus-ca-key.pem to yourself: whoever has it is every process.\n", c.Dir)
	return nil
}
