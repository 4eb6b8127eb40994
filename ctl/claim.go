package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/profile"
	"halo.internal/model/apitype"
)

const (
	envPassword  = "HALO_PASSWORD"
	envClaimCode = "HALO_CLAIM_CODE"
)

func (a *app) claimCommand() *cobra.Command {
	var user, codeFile, passwordFile string
	c := &cobra.Command{
		Use: "claim", Short: "become the first admin of a new gateway", Args: cobra.NoArgs,
		Long: `Claim makes you the first admin of a gateway that has none.

The claim code is shown where the card was written, on the gateway's console
and in claim.txt on its boot partition. The gateway has to prove that it knows
the code, together with its TLS key, before your password is sent; the network's
CA is then kept in your profile.`,
		Example: "  haloctl claim --gateway https://192.0.2.7:8443",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.claim(c.Context(), user, codeFile, passwordFile)
		},
	}
	c.Flags().StringVar(&user, "user", "admin", "`name` of the first admin")
	c.Flags().StringVar(&codeFile, "code-file", "", "`file` that holds the claim code (or "+envClaimCode+")")
	c.Flags().StringVar(&passwordFile, "password-file", "", "`file` that holds the new password (or "+envPassword+")")
	return c
}

func (a *app) claim(ctx context.Context, user, codeFile, passwordFile string) error {
	t, err := a.target()
	if err != nil {
		return err
	}
	code, err := a.secret(ctx, "Claim code", codeFile, envClaimCode)
	if err != nil {
		return err
	}
	password, err := a.newPassword(ctx, passwordFile, envPassword)
	if err != nil {
		return err
	}
	done, err := client.Claim(ctx, t.base, code, user, password, a.localTime())
	if err != nil {
		if errors.Is(err, client.ErrClaimProof) {
			err = &hintError{err, "the code is on the gateway's console and in claim.txt on its boot partition"}
		}
		return err
	}
	t.ca = done.CA
	return a.begin(ctx, t, done.Tokens)
}

// newPassword asks twice: nobody sees what he types.
func (a *app) newPassword(ctx context.Context, file, env string) (string, error) {
	first, err := a.secret(ctx, "New password (10 characters or more)", file, env)
	if err != nil || file != "" || a.env.Getenv(env) != "" {
		return first, err
	}
	again, err := a.env.Terminal.Secret(ctx, "The same again: ")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", errors.New("the two passwords differ; nothing was sent")
	}
	return first, nil
}

// begin writes the profile of a new session.
func (a *app) begin(ctx context.Context, t target, tokens apitype.Tokens) error {
	c, err := client.New(t.base, t.ca, held(tokens.AccessToken))
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := c.SystemInfo(ctx)
	if err != nil {
		return fmt.Errorf("logged in, but the gateway does not describe itself: %w", err)
	}
	p := profile.Profile{Network: info.Network, NetworkKey: info.NetworkKey, Gateway: t.base.String()}
	if p.Network == "" { // a gateway without a bundle has no name for its network
		p.Network = info.Name
	}
	if t.ca != nil {
		p.CA = client.EncodeCA(t.ca)
	}
	p.Start(tokens, time.Now())
	path := a.config
	if path == "" {
		path = a.env.Profiles.PathFor(p)
	}
	if err := p.Save(path); err != nil {
		return err
	}
	a.getReady(ctx, c, path, p)
	if a.json {
		return a.show(struct {
			Network string `json:"network"`
			Gateway string `json:"gateway"`
			User    string `json:"user"`
			Role    string `json:"role"`
			Profile string `json:"profile"`
		}{p.Network, p.Gateway, p.Username, p.Role, path}, nil)
	}
	a.say("Logged in to %s at %s as %s (%s). %s", p.Network, p.Gateway, p.Username, p.Role, a.afterLogin(path))
	return nil
}

// afterLogin says how commands come to be for the profile at path, by what is chosen when no
// flag names another.
func (a *app) afterLogin(path string) string {
	next := app{env: a.env, gateway: a.env.Getenv("HALO_GATEWAY"), network: a.env.Getenv("HALO_NETWORK"), config: a.env.Getenv("HALO_CONFIG")}
	meant, err := next.profilePath()
	switch {
	case meant == path:
		return "Next: haloctl status"
	case a.config != "":
		return "Next: haloctl status --config " + path
	case err != nil || meant == "":
		return "Next: haloctl context use " + profile.Name(path)
	}
	return fmt.Sprintf("Commands are for %s still; haloctl context use %s", profile.Name(meant), profile.Name(path))
}

// held is a session that lives for one command.
type held string

// Token implements client.Tokens.
func (h held) Token(context.Context, string) (string, error) { return string(h), nil }
