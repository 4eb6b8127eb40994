// Package lab is halo-lab: the commands that boot a virtual HALO network from
// the real images, disturb it and end it. Packages below do the work: ether is
// the wire, disk the card, machine one board, network all of them together,
// control the way from a command to the daemon that owns the network.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"halo.internal/lab/control"
	"halo.internal/model/version"
)

// Env is what a run of halo-lab sees of the world.
type Env struct {
	Name   string   // by which halo-lab was called, for what to type next
	Args   []string // without that name
	Stdout io.Writer
	Stderr io.Writer
}

// Run does what the arguments say and returns the process's exit status.
func Run(ctx context.Context, env Env) int {
	a := &app{env: env}
	root := a.command()
	root.SetArgs(env.Args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	var child *childError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &child):
		return child.status // it has said itself what went wrong
	case !a.ran:
		fmt.Fprintf(env.Stderr, "halo-lab: %v; see halo-lab --help\n", err)
		return 2
	}
	fmt.Fprintln(env.Stderr, "halo-lab:", err)
	if errors.Is(err, control.ErrDown) {
		fmt.Fprintln(env.Stderr, "next:", env.Name, "up")
	}
	return 1
}

// childError is the exit status of a program that was run in our place.
type childError struct{ status int }

func (e *childError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// app is one run.
type app struct {
	env  Env
	dir  string
	json bool
	ran  bool // the command line was understood
}

const long = `halo-lab runs a virtual HALO network on this machine: a gateway and nodes in QEMU,
each booted from the real image with a card of its own, joined by the air between
simulated radios, in which you move, cut off and jam them. With up --mesh cable or
both, an Ethernet switch joins them that loses, delays and cuts off what you tell
it to.

  halo-lab up --nodes 2          boot a network
  halo-lab claim                 become its admin
  halo-lab ctl -- node list      haloctl, for this network
  halo-lab kill node1            cut the power; start brings it back
  halo-lab air                   who hears whom, and how well
  halo-lab air move node2 300 0  carry a machine away
  halo-lab bus                   the machines' sensors; gpio, gps: what else is wired to them
  halo-lab bus set node1 bme280 temperature=31.5
  halo-lab partition node1       cut node1 off; heal ends it
  halo-lab down                  end everything
  halo-lab scenario all          break networks in many ways, and see them come back
  halo-lab load --nodes 250      play nodes against a gateway-api, and measure it

Everything of a lab lies in one folder, --dir or HALO_LAB. Nothing of it is
reachable from outside this machine.`

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use: "halo-lab", Short: "run a virtual HALO network", Long: long,
		Version: version.Get().String(), SilenceErrors: true, SilenceUsage: true,
		PersistentPreRun: func(*cobra.Command, []string) { a.ran = true },
	}
	root.SetVersionTemplate("halo-lab {{.Version}}\n")
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"}) // --help says the same
	dir := os.Getenv("HALO_LAB")
	if dir == "" {
		dir = "out/lab"
	}
	f := root.PersistentFlags()
	f.StringVar(&a.dir, "dir", dir, "`folder` of the lab")
	f.BoolVar(&a.json, "json", false, "print JSON for programs")
	root.AddCommand(
		a.upCommand(), a.serveCommand(), a.downCommand(), a.statusCommand(),
		a.ctlCommand(), a.claimCommand(), a.consoleCommand(),
		a.actCommand("reboot", "press a machine's reset button", control.Reboot),
		a.actCommand("stop", "press a machine's power button and wait until it is off", control.Stop),
		a.actCommand("kill", "cut a machine's power; what its card had not flushed may be lost", control.Kill),
		a.actCommand("start", "switch a machine on", control.Start),
		a.actCommand("swap-card", "put a fresh card into a machine that is off; again, the one that was in it before", control.SwapCard),
		a.actCommand("pause", "stop a machine's time", control.Pause),
		a.actCommand("resume", "let a paused machine go on", control.Resume),
		a.partitionCommand(), a.healCommand(), a.linkCommand(), a.airCommand(), a.busCommand(), a.gpioCommand(), a.gpsCommand(), a.crashCommand(), a.scenarioCommand(),
		a.loadCommand(),
	)
	return root
}

// show prints v as JSON for programs, or calls people.
func (a *app) show(v any, people func(io.Writer) error) error {
	if !a.json {
		return people(a.env.Stdout)
	}
	e := json.NewEncoder(a.env.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// done says that something was done, to people or programs.
func (a *app) done(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return a.show(struct {
		Done string `json:"done"`
	}{text}, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, text)
		return err
	})
}
