package ctl_test

import (
	"strings"
	"testing"

	"halo.internal/ctl"
	"halo.internal/ctl/profile"
)

// The overlay's address of a gateway is the same in every network: which one is meant is said
// by its name, or by the choice, and its token goes to no other by the order of names.
func TestOneAddressOfManyNetworks(t *testing.T) {
	_, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	mine, err := profile.Load(u.dir.Path("north-ridge"))
	if err != nil {
		t.Fatal(err)
	}
	other := func(name, gateway string) {
		p := mine
		p.Network, p.NetworkKey, p.Gateway = name, name, gateway
		p.AccessToken, p.RefreshToken = "of-"+name, "refresh-of-"+name
		if err := p.Save(u.dir.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	other("alps", mine.Gateway)
	other("zoo", "http://127.0.0.1:9")
	for _, tc := range []struct {
		name, chosen string
		args         []string
		code         int
		stderr       string
	}{
		{"none is chosen", "", nil, ctl.ExitUsage, "several networks are known: alps, north-ridge; choose"},
		{"another is chosen", "zoo", nil, ctl.ExitUsage, "several networks are known: alps, north-ridge; choose"},
		{"the chosen one", "north-ridge", nil, ctl.ExitOK, ""},
		{"the named one", "", []string{"--network", "north-ridge"}, ctl.ExitOK, ""},
		{"named before chosen", "alps", []string{"--network", "north-ridge"}, ctl.ExitOK, ""},
		{"the token of the other", "alps", nil, ctl.ExitUnauthorised, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := *u
			v.dir = profile.Dir(t.TempDir())
			for _, name := range []string{"alps", "north-ridge", "zoo"} {
				p, err := profile.Load(u.dir.Path(name))
				if err == nil {
					err = p.Save(v.dir.Path(name))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if tc.chosen != "" {
				if err := v.dir.Choose(v.dir.Path(tc.chosen)); err != nil {
					t.Fatal(err)
				}
			}
			code, _, errs := v.run(t.Context(), append([]string{"node", "list", "--gateway", url}, tc.args...)...)
			if code != tc.code || !strings.Contains(errs, tc.stderr) {
				t.Errorf("exit status %d, want %d: %s", code, tc.code, errs)
			}
		})
	}
}
