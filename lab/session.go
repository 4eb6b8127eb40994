package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/lab/control"
	"halo.internal/model/atomicfile"
)

const (
	profileName  = "haloctl.json" // of the lab's network
	passwordName = "password"     // of its admin
)

func (a *app) ctlCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ctl -- COMMAND …", Short: "run haloctl for this network", Args: cobra.MinimumNArgs(1),
		Example: "  halo-lab ctl -- node list\n  halo-lab ctl -- telemetry show node1",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := control.Dial(a.dir)
			if err != nil {
				return err
			}
			if a.json {
				args = append([]string{"--json"}, args...)
			}
			return a.haloctl(c.Context(), client.Lab, nil, a.env.Stdout, args...)
		},
	}
}

func (a *app) claimCommand() *cobra.Command {
	return &cobra.Command{
		Use: "claim", Short: "become the admin of this network, with a password that is made up", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := control.Dial(a.dir)
			if err != nil {
				return err
			}
			password := rand.Text()
			path := filepath.Join(a.dir, passwordName)
			if err := a.haloctl(c.Context(), client.Lab, []string{"HALO_PASSWORD=" + password, "HALO_CLAIM_CODE=" + client.ClaimCode}, a.env.Stderr, "claim"); err != nil {
				return err
			}
			if err := atomicfile.Write(path, []byte(password+"\n"), 0o600); err != nil {
				return err
			}
			return a.show(struct {
				User         string `json:"user"`
				PasswordFile string `json:"password_file"`
			}{"admin", path}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "You are admin; the password is in %s. Next: %s ctl -- node list\n", path, a.env.Name)
				return err
			})
		},
	}
}

// haloctl runs haloctl with the lab's profile.
func (a *app) haloctl(ctx context.Context, l control.Lab, env []string, stdout io.Writer, args ...string) error {
	program, err := beside("haloctl")
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(append(os.Environ(), "HALO_CONFIG="+filepath.Join(a.dir, profileName), "HALO_GATEWAY="+l.API), env...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, stdout, a.env.Stderr
	err = c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &childError{exit.ExitCode()}
	}
	return err
}

// beside finds a program of HALO: where this one is, or in the PATH.
func beside(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w; `make build` makes it", err)
	}
	return path, nil
}

func (a *app) consoleCommand() *cobra.Command {
	var follow bool
	var lines, back int
	c := &cobra.Command{
		Use: "console MACHINE", Short: "show what a machine says on its serial console", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name := "console.log"
			if back > 0 {
				name = fmt.Sprintf("console.%d.log", back)
			}
			return a.console(c.Context(), filepath.Join(control.Consoles(a.dir, filepath.Base(args[0])), name), lines, follow)
		},
	}
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	f.IntVarP(&lines, "lines", "n", 0, "only the last `number` of lines; 0 for all")
	f.IntVar(&back, "back", 0, "that of an earlier start: 1 for the one before")
	return c
}

const consolePoll = 200 * time.Millisecond

func (a *app) console(ctx context.Context, path string, lines int, follow bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if _, err := a.env.Stdout.Write(lastLines(text, lines)); err != nil || !follow {
		return err
	}
	tick := time.NewTicker(consolePoll)
	defer tick.Stop()
	for {
		if _, err := io.Copy(a.env.Stdout, f); err != nil {
			return err
		}
		// A new start has a console of its own, and between two there is none.
		if next, err := os.Open(path); err == nil {
			f, next = newer(f, next)
			next.Close()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// newer returns next and f when they are two files, and otherwise f and next.
func newer(f, next *os.File) (follow, drop *os.File) {
	mine, err1 := f.Stat()
	theirs, err2 := next.Stat()
	if err1 == nil && err2 == nil && !os.SameFile(mine, theirs) {
		return next, f
	}
	return f, next
}

// lastLines returns the last n lines, or all when n is 0.
func lastLines(text []byte, n int) []byte {
	if n <= 0 {
		return text
	}
	for i := len(text) - 1; i > 0; i-- {
		if text[i-1] == '\n' {
			if n--; n == 0 {
				return text[i:]
			}
		}
	}
	return text
}

// consoleTails shows the end of every console, when a network did not come up.
func (a *app) consoleTails() {
	paths, _ := filepath.Glob(control.Consoles(a.dir, "*") + "/console.log") // the pattern is ours
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err == nil {
			fmt.Fprintf(a.env.Stderr, "--- %s\n%s\n", p, lastLines(text, 30))
		}
	}
}
