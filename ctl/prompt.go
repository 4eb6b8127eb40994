package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"halo.internal/ctl/console"
	"halo.internal/ctl/profile"
	"halo.internal/local"
	"halo.internal/model/paths"
)

// Where a device's consoles are.
const (
	activeConsoles = "/sys/class/tty/console/active"
	devices        = "/dev"
)

// consoleCommand serves the device's consoles; the device's init starts it.
func (a *app) consoleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "console", Short: "serve the prompt on this device's screen and serial port", Args: cobra.NoArgs, Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.env.Console != "" {
				return &usageError{errors.New("this is the console")}
			}
			log := slog.New(slog.NewTextHandler(a.env.Stderr, nil))
			console.Run(c.Context(), activeConsoles, devices, func(name string) console.Config {
				return console.Config{Name: name, Device: local.NewMesh(a.env.MeshSocket), Log: log, Login: func() (func(context.Context, []string, io.Writer, console.Asker), func()) {
					return Login(a.env.MeshSocket, name, filepath.Join(paths.Run, "console", name))
				}}
			})
			return nil
		},
	}
}

// Login begins a session at a console. What it remembers, such as a login to the
// gateway, is in a folder in RAM that goes with it.
func Login(socket, name, dir string) (run func(ctx context.Context, args []string, out io.Writer, person console.Asker), logout func()) {
	_ = os.RemoveAll(dir) // of a session that a crash ended
	run = func(ctx context.Context, args []string, out io.Writer, person console.Asker) {
		_ = Run(ctx, Env{ // its words say what its status would
			Args: args, Stdout: out, Stderr: out, Terminal: person, Profiles: profile.Dir(dir),
			Getenv: func(string) string { return "" }, MeshSocket: socket, Console: name,
		})
	}
	return run, func() { _ = os.RemoveAll(dir) }
}

// refuseFiles keeps a console from the device's files: who has logged in there
// may use haloctl, and is not its superuser.
func (a *app) refuseFiles(c *cobra.Command) error {
	if a.env.Console == "" {
		return nil
	}
	var refused error
	c.Flags().Visit(func(f *pflag.Flag) {
		if isFile(f) && f.Value.String() != "-" {
			refused = &usageError{fmt.Errorf("--%s: a console has no files; do this from a laptop with --node", f.Name)}
		}
	})
	return refused
}

// isFile tells of a flag that names a file.
func isFile(f *pflag.Flag) bool {
	what, _ := pflag.UnquoteUsage(f)
	return what == "file"
}
