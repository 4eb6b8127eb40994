package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"sync"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/lan"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Kinds of events.
const (
	eventPolicyKept    = "firewall.policy"         // what people have set is another
	eventPolicyTrial   = "firewall.trial"          // the same, on trial
	eventPolicyBack    = "firewall.trial-over"     // the one before came back by itself
	eventPolicyDamaged = "firewall.policy-damaged" // the card's copy
)

// policies keeps what people have set of a gateway's firewall. One that is on trial
// is in RAM alone: whatever ends this process before it is confirmed brings the one
// back that the card keeps.
type policies struct {
	set  func(model.FirewallPolicy) error // has one in force
	keep func(model.FirewallPolicy) error // writes one to the card
	tell func(kind, message string, warn bool)
	wake chan struct{} // a trial has begun or ended

	mu    sync.Mutex // guards what follows and serialises changes
	kept  model.FirewallPolicy
	trial *model.FirewallPolicy
	until time.Time
	vain  int // how often the one before did not come back since until
}

// put has a policy in force: for that long, or for good. It may be the one on trial,
// which then is kept.
func (p *policies) put(o model.FirewallOrder) error {
	if o.TrialS != 0 && (o.TrialS < model.MinTrialS || o.TrialS > model.MaxTrialS) {
		return fmt.Errorf("%w: trial_s: expected %d to %d, or 0, got %d", api.ErrInvalid, model.MinTrialS, model.MaxTrialS, o.TrialS)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer wake(p.wake)
	if err := p.set(o.Policy); err != nil {
		if errors.Is(err, lan.ErrPolicy) {
			return fmt.Errorf("%w: %w", api.ErrInvalid, err)
		}
		return err
	}
	if o.TrialS != 0 {
		p.try(o.Policy, time.Duration(o.TrialS)*time.Second)
		p.tell(eventPolicyTrial, fmt.Sprintf("another firewall policy is on trial for %d s", o.TrialS), false)
		return nil
	}
	p.trial = nil
	if o.Policy.Digest() == p.kept.Digest() {
		return nil
	}
	if err := p.keep(o.Policy); err != nil {
		err = fmt.Errorf("the card does not keep it: %w", err)
		back := p.set(p.kept)
		if back != nil {
			p.try(o.Policy, 0) // so that run takes it back
		}
		return errors.Join(err, back)
	}
	p.kept = o.Policy.Clone()
	p.tell(eventPolicyKept, "the firewall goes by another policy for good", false)
	return nil
}

// try has a policy that is in force be on trial for so long; p.mu is held.
func (p *policies) try(f model.FirewallPolicy, long time.Duration) {
	f = f.Clone()
	p.trial, p.until, p.vain = &f, time.Now().Add(long), 0
}

// run ends trials that nobody has confirmed.
func (p *policies) run(ctx context.Context) error {
	for {
		p.mu.Lock()
		var over <-chan time.Time
		if p.trial != nil {
			over = time.After(time.Until(p.until))
		}
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-over:
			p.end()
		}
	}
}

func (p *policies) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trial == nil || time.Now().Before(p.until) {
		return // it was confirmed meanwhile, or another began
	}
	if err := p.set(p.kept); err != nil {
		p.until = time.Now().Add(time.Second) // again: it is what people count on
		if p.vain++; p.vain&(p.vain-1) == 0 { // ever more rarely: other events have to have room too
			p.tell(eventPolicyBack, fmt.Sprintf("the firewall policy in force was neither confirmed nor kept, and the one before did not come back, tried %d times: %v", p.vain, err), true)
		}
		return
	}
	p.trial = nil
	p.tell(eventPolicyBack, "the firewall policy in force was not confirmed in time, or not kept, so the one before holds again", true)
}

func (p *policies) inForce(whole bool) *model.FirewallInForce {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &model.FirewallInForce{Kept: p.kept.Digest()}
	if p.trial != nil {
		f.Trial, f.LeftS = p.trial.Digest(), int(max(0, time.Until(p.until).Round(time.Second))/time.Second)
	}
	if whole {
		kept := p.kept.Clone()
		f.KeptPolicy = &kept
		if p.trial != nil {
			trial := p.trial.Clone()
			f.TrialPolicy = &trial
		}
	}
	return f
}

// newPolicies takes up what the card keeps, before the first rule.
func (m *core) newPolicies() *policies {
	p := &policies{
		wake: make(chan struct{}, 1), set: m.lan.SetPolicy,
		keep: func(f model.FirewallPolicy) error {
			_, err := m.store.Put(paths.Firewall, "", marshalPolicy(f))
			return err
		},
		tell: func(kind, message string, warn bool) {
			s := model.Info
			if warn {
				s = model.Warning
			}
			m.events.Add(kind, s, message)
		},
	}
	_, err := m.store.Get(paths.Firewall, "", func(b []byte) (err error) {
		p.kept, err = parsePolicy(b)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.events.Add(eventPolicyDamaged, model.Warning, "the kept firewall policy is damaged, and does not hold until gateway-api hands it over: "+err.Error())
	}
	m.lan.BeginWith(p.kept)
	return p
}

// marshalPolicy writes JSON and a checksum of it.
func marshalPolicy(p model.FirewallPolicy) []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic("mesh: firewall policy: " + err.Error()) // of strings, numbers and addresses
	}
	return fmt.Appendf(b, "%08x", crc32.ChecksumIEEE(b))
}

func parsePolicy(b []byte) (p model.FirewallPolicy, err error) {
	const sum = 8
	if len(b) < sum || fmt.Sprintf("%08x", crc32.ChecksumIEEE(b[:len(b)-sum])) != string(b[len(b)-sum:]) {
		return p, errors.New("firewall policy: checksum differs")
	}
	if err := json.Unmarshal(b[:len(b)-sum], &p); err != nil {
		return model.FirewallPolicy{}, fmt.Errorf("firewall policy: %w", err)
	}
	if err := p.Validate(); err != nil {
		return model.FirewallPolicy{}, err
	}
	return p, nil
}

// PutFirewallPolicy has what people have set in force, for good or on trial.
func (g *gateway) PutFirewallPolicy(o model.FirewallOrder) error { return g.policies.put(o) }

// FirewallPolicy tells which policies are kept and on trial.
func (g *gateway) FirewallPolicy() (model.FirewallInForce, error) {
	return *g.firewallInForce(true), nil
}

func (g *gateway) firewallInForce(whole bool) *model.FirewallInForce {
	f := g.policies.inForce(whole)
	if err := g.lan.Unfit(); err != nil {
		f.Problem = err.Error()
	}
	return f
}

// PreviewFirewall tells what a policy would change.
func (g *gateway) PreviewFirewall(q model.FirewallQuestion) (model.FirewallPreview, error) {
	p, err := g.lan.Preview(q)
	if errors.Is(err, lan.ErrPolicy) {
		err = fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return p, err
}

// A node's firewall is its own: what people set is the gateway's, by which all that
// is theirs to rule passes.

// PutFirewallPolicy refuses.
func (n *node) PutFirewallPolicy(model.FirewallOrder) error { return api.ErrRole }

// FirewallPolicy refuses.
func (n *node) FirewallPolicy() (model.FirewallInForce, error) {
	return model.FirewallInForce{}, api.ErrRole
}

// PreviewFirewall refuses.
func (n *node) PreviewFirewall(model.FirewallQuestion) (model.FirewallPreview, error) {
	return model.FirewallPreview{}, api.ErrRole
}
