// Package ctl is haloctl: the commands with which people and programs use a
// HALO network from a shell, on the gateway or on a laptop. Run is the whole
// program without the process around it, so that every command can be called
// and tested as a function; package client does the talking, package profile
// the remembering, package table the printing.
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"halo.internal/ctl/profile"
	"halo.internal/ctl/table"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// Env is what a run of haloctl sees of the world.
type Env struct {
	Args     []string  // without the program's name
	Stdin    io.Reader // nil where there is none
	Stdout   io.Writer
	Stderr   io.Writer
	Terminal Terminal // nil when nobody can be asked
	Profiles profile.Dir
	Getenv   func(string) string

	MeshSocket string // of halo-mesh, for --local
	Console    string // name of the device's console at which this is; empty: at none. The device is asked unless another is named, and no file is read or written
}

// Process is the Env of this process.
func Process() Env {
	dir, err := os.UserConfigDir()
	if err != nil {
		dir = paths.State // a board's processes have no HOME
	}
	return Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: openTerminal(os.Stdin, os.Stderr),
		Profiles: profile.Dir(filepath.Join(dir, "halo")), Getenv: os.Getenv, MeshSocket: paths.MeshSocket,
	}
}

// Run does what the arguments say and returns the process's exit status.
func Run(ctx context.Context, env Env) int {
	a := &app{env: env}
	root := a.command()
	root.SetArgs(env.Args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if errors.Is(err, errVersion) {
		fmt.Fprintln(env.Stdout, "haloctl", version.Get())
		return ExitOK
	}
	if !a.ran {
		err = &usageError{err}
	}
	code, hint := judge(err)
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(env.Stderr, "haloctl:", table.Clean(line))
	}
	if hint != "" {
		fmt.Fprintln(env.Stderr, "next:", hint)
	}
	return code
}

// errVersion ends the reading of the command line: the version is all that is wanted.
// cobra's own flag would want a template for how that is said, which finds methods by
// their names, so that the linker keeps every exported method of every type.
var errVersion = errors.New("the version is wanted")

// app is one run.
type app struct {
	env     Env
	gateway string // flags
	config  string
	network string
	node    string
	here    bool
	json    bool
	form    form
	paper   *table.Page
	ran     bool // the command line was understood
}

const long = `haloctl shows and changes a HALO network through its gateway's API.

On the gateway itself it needs no address. From elsewhere, claim or log in once
with --gateway https://ADDRESS:8443; the network's CA and the session are then
kept in a profile, one file per network, and later commands need no address; where
several networks are known, haloctl context use says which one is meant.

With --node, the commands mesh, net, event list, status, health and support ask
a node itself, also while the gateway is off. Login fetches the certificate that
lets you in there. --local asks the device that haloctl runs on.

Environment: HALO_GATEWAY, HALO_NETWORK and HALO_CONFIG stand for the flags of
these names; HALO_PASSWORD and HALO_CLAIM_CODE answer the questions of claim and
login where nobody can be asked, HALO_NEW_PASSWORD those of user add and user
password, HALO_BACKUP_PASSPHRASE that of backup and restore.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 gateway not reachable,
4 not authorised, 5 not found.`

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use: "haloctl", Short: "show and change a HALO network", Long: long,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			a.ran = true
			a.json = a.json || a.form == formJSON
			return a.refuseFiles(c)
		},
	}
	root.Flags().BoolFuncP("version", "v", "version for haloctl", func(string) error { return errVersion })
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"}) // --help says the same
	f := root.PersistentFlags()
	f.StringVar(&a.gateway, "gateway", a.env.Getenv("HALO_GATEWAY"), "gateway's `address`, such as https://192.0.2.7:8443")
	f.StringVar(&a.network, "network", a.env.Getenv("HALO_NETWORK"), "`name` of the network, where several are known (default: the one of context use)")
	_ = root.RegisterFlagCompletionFunc("network", a.completeNetworks)
	f.StringVar(&a.config, "config", a.env.Getenv("HALO_CONFIG"), "profile `file` to use instead of the user's own")
	f.StringVar(&a.node, "node", "", "ask this `node` at its door: name, ID, address, or NODE@ADDRESS")
	f.BoolVar(&a.here, "local", false, "ask halo-mesh of this device, not the gateway")
	f.BoolVar(&a.json, "json", false, "print JSON for programs")
	a.formFlag(root)
	root.AddCommand(
		a.claimCommand(), a.loginCommand(), a.logoutCommand(),
		a.statusCommand(), a.healthCommand(), a.capabilitiesCommand(), a.versionCommand(),
		a.nodeCommand(), a.boardCommand(), a.boardsCommand(), a.sensorCommand(), a.powerCommand(), a.brainCommand(), a.telemetryCommand(), a.eventCommand(), a.alertCommand(), a.watchCommand(),
		a.registrationCommand(), a.joinTokenCommand(), a.trustCommand(), a.networkCommand(), a.topologyCommand(), a.meshCommand(), a.netCommand(),
		a.firewallCommand(), a.overlayCommand(), a.clientCommand(), a.cameraCommand(), a.modelCommand(),
		a.jobCommand(), a.speedTestCommand(),
		a.userCommand(), a.operatorCommand(), a.supportCommand(), a.consoleCommand(), a.apiTokenCommand(), a.auditCommand(),
		a.settingCommand(), a.contextCommand(), a.apiCommand(),
		a.backupCommand(), a.restoreCommand(), a.caCommand(), a.sessionCommand(),
	)
	return root
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		return &usageError{fmt.Errorf("%s: expected one of its commands, got %q (see %s --help)", c.CommandPath(), args, c.CommandPath())}
	}}
	c.AddCommand(commands...)
	return c
}

// show prints v as JSON for programs, or calls people with a writer.
func (a *app) show(v any, people func(io.Writer) error) error {
	if !a.json {
		return people(a.page())
	}
	e := json.NewEncoder(a.env.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// items is the JSON of a list: an object, so that fields can be added.
type items[T any] struct {
	Items []T `json:"items"`
}

// say tells a person what was done; programs read the exit status.
func (a *app) say(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.page(), format+"\n", args...)
	}
}
