package ctl

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/profile"
)

func (a *app) loginCommand() *cobra.Command {
	var user, passwordFile, sum string
	c := &cobra.Command{
		Use: "login", Short: "log in to a gateway", Args: cobra.NoArgs,
		Long: `Login starts a session, which is kept in your profile and renews itself.

A gateway that does not know the time takes that of this computer.

The first login from a machine needs to know the network's CA: compare the
fingerprint that is shown with the one on the gateway's console (or give it with
--ca-sha256). It is then kept, and the gateway is recognised by it.`,
		Example: "  haloctl login --gateway https://192.0.2.7:8443 --user admin",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.login(c.Context(), user, passwordFile, sum)
		},
	}
	c.Flags().StringVar(&user, "user", "", "user `name` (default: that of the last login, or admin)")
	c.Flags().StringVar(&passwordFile, "password-file", "", "`file` that holds the password (or "+envPassword+")")
	c.Flags().StringVar(&sum, "ca-sha256", "", "`fingerprint` of the network's CA, which replaces a known one")
	return c
}

func (a *app) login(ctx context.Context, user, passwordFile, sum string) error {
	t, err := a.target()
	if err != nil {
		return err
	}
	if t.base.Scheme == "https" {
		if t.ca, err = a.trustedCA(ctx, t, sum); err != nil {
			return err
		}
	}
	if user == "" {
		user = t.prof.Username
	}
	if user == "" {
		user = "admin"
	}
	password, err := a.secret(ctx, "Password of "+user, passwordFile, envPassword)
	if err != nil {
		return err
	}
	c, err := client.New(t.base, t.ca, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	tokens, err := c.Login(ctx, user, password, a.localTime())
	if err != nil {
		return err
	}
	return a.begin(ctx, t, tokens)
}

// localTime is what a gateway may go by that does not know the time: that of this computer,
// unless it is a HALO device itself, whose clock is no better.
func (a *app) localTime() *time.Time {
	if _, err := os.Stat(a.env.MeshSocket); err == nil {
		return nil
	}
	now := time.Now().UTC()
	return &now
}

// trustedCA is the CA of the profile, or the one that the gateway presents and
// a person or the flag vouches for.
func (a *app) trustedCA(ctx context.Context, t target, sum string) (*x509.Certificate, error) {
	if t.ca != nil && sum == "" {
		return t.ca, nil
	}
	want, err := parseFingerprint(sum)
	if err != nil {
		return nil, &usageError{err}
	}
	ca, err := client.FetchCA(ctx, t.base)
	if err != nil {
		return nil, err
	}
	got := client.Fingerprint(ca)
	if want != "" {
		if got != want {
			return nil, &client.UntrustedError{Gateway: t.base.Host, Err: fmt.Errorf("expected the CA %s, it presents %s", want, got)}
		}
		return ca, nil
	}
	if a.env.Terminal == nil {
		return nil, &hintError{fmt.Errorf("the gateway's CA is not known here; it presents %s", got),
			"compare it with the fingerprint on the gateway's console and give it with --ca-sha256"}
	}
	fmt.Fprintf(a.env.Stderr, "The gateway at %s presents the CA\n  %s\n", t.base.Host, got)
	yes, err := a.yes(ctx, "Is this the fingerprint on the gateway's console?")
	if err != nil {
		return nil, err
	}
	if !yes {
		return nil, errors.New("the CA was not confirmed; nothing was sent")
	}
	return ca, nil
}

// parseFingerprint reads a SHA-256 with or without colons.
func parseFingerprint(s string) (string, error) {
	s = strings.ToLower(strings.ReplaceAll(s, ":", ""))
	if b, err := hex.DecodeString(s); s != "" && (err != nil || len(b) != 32) {
		return "", errors.New("--ca-sha256: expected 64 hexadecimal digits")
	}
	return s, nil
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "end the session and forget it here", Args: cobra.NoArgs,
		Long: `Logout ends the session and forgets it and your operator certificate, whose key
is in no other place.`,
		RunE: func(c *cobra.Command, _ []string) error { return a.logout(c.Context()) },
	}
}

// logout ends the session on the gateway and takes it out of the profile, the
// second also when the gateway is away.
func (a *app) logout(ctx context.Context) error {
	t, err := a.target()
	if err != nil {
		return err
	}
	remote := endSession(ctx, t)
	if t.path != "" {
		err := profile.Update(t.path, func(p *profile.Profile) error { p.End(); return nil })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := forgetOperator(t.path); err != nil {
			return err
		}
	}
	if _, away := errors.AsType[*client.UnreachableError](remote); away {
		return &hintError{fmt.Errorf("forgotten here, but the gateway does not know: %w", remote),
			"the session ends there by itself when it is not used"}
	}
	if remote != nil {
		return remote
	}
	a.say("Logged out of %s.", t.prof.Network)
	return nil
}

// endSession tells the gateway. It needs an access token that is still good,
// and the refresh token that belongs to it: renewing one replaces the other.
func endSession(ctx context.Context, t target) error {
	plain, err := client.New(t.base, t.ca, nil)
	if err != nil {
		return errNotLoggedIn // https without a CA: there never was a session
	}
	defer plain.Close()
	s := &session{path: t.path, plain: plain}
	stale := ""
	for range 2 {
		access, err := s.Token(ctx, stale)
		if err != nil {
			return err
		}
		p, err := profile.Load(t.path)
		if err != nil {
			return err
		}
		c, err := client.New(t.base, t.ca, held(access))
		if err != nil {
			return err
		}
		err = c.Logout(ctx, p.RefreshToken)
		c.Close()
		if code, _ := judge(err); err == nil || code != ExitUnauthorised {
			return err
		}
		stale = access
	}
	return errNotLoggedIn
}
