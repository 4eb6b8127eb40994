package mesh_test

import (
	"fmt"
	"testing"

	"halo.internal/model"
)

// TestAFirewallPolicyOverPowerCuts on a gateway: what is kept holds from the start on,
// what is on trial does not survive, nor the time that it was given.
func TestAFirewallPolicyOverPowerCuts(t *testing.T) {
	turn(t)
	b, _, _ := bundles(t)
	gw := newBoard(t, model.RoleGateway, b)
	gw.start()
	policy := func(name string) model.FirewallPolicy {
		return model.FirewallPolicy{Rules: []model.FirewallRule{{Name: name, Action: model.Deny, From: model.ZoneUplink, To: model.ZoneLocal}}}
	}
	// holds tells whether the kernel has the rule of that name, and the status says so.
	holds := func(name string, trial bool) error {
		s, err := gw.mesh.Firewall(t.Context())
		if err != nil {
			return err
		}
		var rules []string
		for _, r := range s.Rules {
			if len(r.Name) > 5 && r.Name[:5] == "rule/" {
				rules = append(rules, r.Name[5:])
			}
		}
		f := gw.status().Firewall
		if len(rules) != 1 || rules[0] != name || f == nil || (f.Trial != "") != trial || f.Problem != "" {
			return fmt.Errorf("rules %q, status %+v", rules, f)
		}
		return nil
	}
	put := func(p model.FirewallPolicy, trial int) {
		t.Helper()
		if err := gw.mesh.PutFirewallPolicy(t.Context(), model.FirewallOrder{Policy: p, TrialS: trial}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "halo-mesh answers", func() error { _, err := gw.mesh.Status(t.Context()); return err })
	put(policy("kept"), 0)
	until(t, "it holds", func() error { return holds("kept", false) })

	put(policy("trial"), 600)
	until(t, "another is on trial", func() error { return holds("trial", true) })
	gw.cut()
	gw.launch() // the process alone
	until(t, "the kept one after a crash", func() error { return holds("kept", false) })

	put(policy("trial"), 600)
	until(t, "another is on trial", func() error { return holds("trial", true) })
	gw.cut()
	gw.start()
	until(t, "the kept one after a power cut", func() error { return holds("kept", false) })

	put(policy("trial"), model.MinTrialS)
	until(t, "another is on trial", func() error { return holds("trial", true) })
	until(t, "the kept one, as nobody has confirmed", func() error { return holds("kept", false) })
	if err := gw.hasEvent("firewall.trial-over"); err != nil {
		t.Error(err)
	}
	q := model.FirewallQuestion{Policy: policy("kept")}
	if p, err := gw.mesh.PreviewFirewall(t.Context(), q); err != nil || len(p.Added) != 0 || len(p.Removed) != 0 {
		t.Errorf("what holds would change %+v, %v", p, err)
	}
	if f, err := gw.mesh.FirewallPolicy(t.Context()); err != nil || f.KeptPolicy == nil || f.KeptPolicy.Rules[0].Name != "kept" {
		t.Errorf("got %+v, %v", f, err)
	}
}
