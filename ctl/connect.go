package ctl

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"halo.internal/ctl/client"
	"halo.internal/ctl/profile"
)

// target is the gateway that a command is for.
type target struct {
	base *url.URL
	path string            // of the profile; empty when there is none yet
	prof profile.Profile   // zero without a profile
	ca   *x509.Certificate // nil when none is known
}

// target finds the profile and the address from the flags.
func (a *app) target() (target, error) {
	path, err := a.profilePath()
	if err != nil {
		return target{}, err
	}
	t, err := targetAt(path)
	if err != nil {
		return target{}, err
	}
	if a.gateway != "" {
		if t.base, err = client.ParseGateway(a.gateway); err != nil {
			return target{}, &usageError{err}
		}
	}
	return t, nil
}

// targetAt is the gateway of a profile; without one, that of the device haloctl runs on.
func targetAt(path string) (t target, err error) {
	t = target{base: client.OnGateway(), path: path}
	if path != "" {
		switch t.prof, err = profile.Load(path); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return target{}, err
		default:
			if t.base, err = client.ParseGateway(t.prof.Gateway); err != nil {
				return target{}, fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	if t.prof.CA != "" {
		if t.ca, err = client.ParseCA(t.prof.CA); err != nil {
			return target{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	return t, nil
}

// profilePath chooses the profile: the file that was named, the network that
// was named, the one with that gateway, the only one there is, or the chosen one. A network
// that is named and not known is one to be made known, for which an address is needed: the
// device that haloctl runs on is not meant.
func (a *app) profilePath() (string, error) {
	if a.config != "" {
		return a.config, nil
	}
	if a.network != "" {
		path := a.env.Profiles.Path(a.network)
		if _, err := os.Stat(path); err != nil && a.gateway == "" {
			return "", a.noContext(err, path)
		}
		return path, nil
	}
	list, err := a.env.Profiles.List()
	if err != nil {
		return "", err
	}
	if a.gateway != "" {
		base, err := client.ParseGateway(a.gateway)
		if err != nil {
			return "", &usageError{err}
		}
		var there []string
		for _, path := range list {
			if p, err := profile.Load(path); err == nil && p.Gateway == base.String() {
				there = append(there, path)
			}
		}
		if len(there) > 0 {
			return a.soleOrChosen(there)
		}
		// An address that is new: without a CA to compare there is no telling whose it
		// is, so the known session is offered only to who proves the network's CA.
		if base.Scheme != "https" {
			return "", nil
		}
	}
	if len(list) == 0 {
		return "", nil
	}
	return a.soleOrChosen(list)
}

// soleOrChosen is the only one of the profiles, or the chosen one if it is among them. The
// address of a gateway need not tell them apart: on the overlay it is the same in every
// network.
func (a *app) soleOrChosen(list []string) (string, error) {
	if len(list) == 1 {
		return list[0], nil
	}
	path, err := a.env.Profiles.Chosen()
	if err != nil || slices.Contains(list, path) {
		return path, err
	}
	names := make([]string, len(list))
	for i, path := range list {
		names[i] = profile.Name(path)
	}
	return "", &usageError{fmt.Errorf("several networks are known: %s; choose with --network, or with haloctl context use", strings.Join(names, ", "))}
}

// connect returns a client with the profile's session.
func (a *app) connect() (*client.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	if t.base.Scheme == "https" && t.ca == nil {
		return nil, fmt.Errorf("%w at %s", errNotLoggedIn, t.base)
	}
	plain, err := client.New(t.base, t.ca, nil)
	if err != nil {
		return nil, err
	}
	return client.New(t.base, t.ca, &session{path: t.path, plain: plain})
}

// connectOpen returns a client for what needs no session. Where no CA is
// known yet, it looks at the one that the gateway presents: what an open route
// says is no secret, and nothing is sent.
func (a *app) connectOpen(ctx context.Context) (*client.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	return openTo(ctx, t)
}

// openTo is connectOpen to that gateway.
func openTo(ctx context.Context, t target) (c *client.Client, err error) {
	if t.base.Scheme == "https" && t.ca == nil {
		if t.ca, err = client.FetchCA(ctx, t.base); err != nil {
			return nil, err
		}
	}
	return client.New(t.base, t.ca, nil)
}

// session gives out the profile's access token and renews it in time.
type session struct {
	path  string
	plain *client.Client // without tokens, for the refresh
}

// early is how long before its end an access token is renewed: a request must
// arrive while it is good.
const early = time.Minute

// Token implements client.Tokens.
func (s *session) Token(ctx context.Context, stale string) (string, error) {
	if s.path == "" {
		return "", errNotLoggedIn
	}
	good := func(p profile.Profile) bool {
		return p.AccessToken != "" && p.AccessToken != stale && time.Now().Before(p.AccessEnds.Add(-early))
	}
	p, err := profile.Load(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNotLoggedIn
	}
	if err != nil || good(p) {
		return p.AccessToken, err
	}
	err = profile.Update(s.path, func(now *profile.Profile) error {
		if p = *now; good(p) {
			return nil // another haloctl renewed it while we waited
		}
		if p.RefreshToken == "" {
			return errNotLoggedIn
		}
		t, err := s.plain.Refresh(ctx, p.RefreshToken)
		if err != nil {
			return err
		}
		now.Start(t, time.Now())
		p = *now
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = errNotLoggedIn // it was forgotten while we waited
	}
	return p.AccessToken, err
}
