package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/profile"
	"halo.internal/ctl/table"
)

const contextLong = `A context is a network that is known here: where its gateway is, its CA, and your
login, as claim and login keep them in a profile. Where several are known, a
command is for the one of --network or HALO_NETWORK, else for the one whose gateway
--gateway names, else for the one that is in use, which also decides where several
have a gateway of that address.`

func (a *app) contextCommand() *cobra.Command {
	use := a.ofContext("use NETWORK", "have commands be for this network where none is named", func(path string) error {
		if err := a.env.Profiles.Choose(path); err != nil {
			return a.noContext(err, path)
		}
		a.say("Commands are for %s now.", profile.Name(path))
		return nil
	})
	remove := a.ofContext("remove NETWORK", "log out of a network and forget it", nil)
	remove.RunE = func(c *cobra.Command, args []string) error {
		return a.contextRemove(c.Context(), a.env.Profiles.Path(args[0]))
	}
	remove.Long = `Remove ends the login, if the gateway is there, and forgets the network: its
gateway's address and CA, your operator certificate, its nodes, and the head of
the audit log that was verified last. The gateway is recognised by its CA: another
login has to compare that anew.`
	g := group("context", "the networks that are known here",
		&cobra.Command{
			Use: "list", Short: "all of them, and which one is in use", Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
			RunE: func(*cobra.Command, []string) error { return a.contextList() },
		}, use, remove)
	g.Aliases, g.Long = []string{"contexts"}, contextLong
	return g
}

// ofContext is a command about a profile, which the shell completes.
func (a *app) ofContext(use, short string, run func(path string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(c *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeNetworks(c, args, part)
		},
		RunE: func(_ *cobra.Command, args []string) error { return run(a.env.Profiles.Path(args[0])) },
	}
}

// completeNetworks has the shell complete the name of a profile.
func (a *app) completeNetworks(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	list, err := a.env.Profiles.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	words := make([]string, len(list))
	for i, path := range list {
		words[i] = profile.Name(path)
		if p, err := profile.Load(path); err == nil {
			words[i] += "\t" + table.Clean(p.Gateway)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) noContext(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &hintError{&usageError{fmt.Errorf("no network %s is known here", profile.Name(path))}, "haloctl context list shows those that are; claim and login make another one known with --gateway"}
	}
	return err
}

// knownNetwork is a profile as context list tells of it.
type knownNetwork struct {
	Name     string     `json:"name"`
	InUse    bool       `json:"in_use"`
	Network  string     `json:"network,omitempty"`
	Gateway  string     `json:"gateway,omitempty"`
	Username string     `json:"username,omitempty"`
	Role     string     `json:"role,omitempty"`
	LoggedIn bool       `json:"logged_in"` // as far as is known here
	Used     *time.Time `json:"used,omitempty"`
	Problem  string     `json:"problem,omitempty"`
}

func (a *app) contextList() error {
	paths, err := a.env.Profiles.List()
	if err != nil {
		return err
	}
	inUse, err := a.profilePath()
	if _, none := errors.AsType[*usageError](err); err != nil && !none {
		return err
	}
	list := []knownNetwork{}
	for _, path := range paths {
		k := knownNetwork{Name: profile.Name(path), InUse: path == inUse}
		if info, err := os.Stat(path); err == nil {
			used := info.ModTime().UTC().Truncate(time.Second) // its login renewed itself then
			k.Used = &used
		}
		p, err := profile.Load(path)
		if err != nil {
			k.Problem = err.Error()
		} else {
			k.Network, k.Gateway, k.Username, k.Role, k.LoggedIn = p.Network, p.Gateway, p.Username, p.Role, p.RefreshToken != ""
		}
		list = append(list, k)
	}
	return a.show(items[knownNetwork]{list}, func(w io.Writer) error {
		if len(list) == 0 {
			_, err := fmt.Fprintln(w, "None is: haloctl claim or haloctl login makes one known.")
			return err
		}
		t := table.New("NAME", "IN USE", "GATEWAY", "USER", "ROLE", "LOGGED IN", "USED", "PROBLEM")
		for _, k := range list {
			used := never
			if k.Used != nil {
				used = table.Age(time.Now(), *k.Used)
			}
			t.Row(k.Name, yes(k.InUse), k.Gateway, k.Username, k.Role, k.LoggedIn, used, k.Problem)
		}
		return t.Write(w)
	})
}

// contextRemove forgets a network, whether its gateway is there or not.
func (a *app) contextRemove(ctx context.Context, path string) error {
	paths, err := a.env.Profiles.List()
	if err != nil {
		return err
	}
	if !slices.Contains(paths, path) {
		return a.noContext(fs.ErrNotExist, path)
	}
	if p, err := profile.Load(path); err == nil && p.RefreshToken != "" {
		t, err := targetAt(path)
		if err == nil {
			err = endSession(ctx, t)
		}
		if err != nil {
			fmt.Fprintln(a.env.Stderr, "haloctl: the gateway does not know of it, and the login ends there by itself when it is not used:", table.Clean(err.Error()))
		}
	}
	if err := a.env.Profiles.Remove(path); err != nil {
		return err
	}
	a.say("%s is forgotten.", profile.Name(path))
	return nil
}
