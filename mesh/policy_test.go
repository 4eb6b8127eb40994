package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/lan"
	"halo.internal/model"
)

// rig is the card, the kernel and the event log of policies.
type rig struct {
	policies
	card    []byte
	inForce string // digest
	events  []string
	setErr  error
	keepErr error
}

func newRig(card []byte) *rig {
	r := &rig{card: card}
	r.wake = make(chan struct{}, 1)
	r.set = func(p model.FirewallPolicy) error {
		if r.setErr == nil {
			r.inForce = p.Digest()
		}
		return r.setErr
	}
	r.keep = func(p model.FirewallPolicy) error {
		if r.keepErr == nil {
			r.card = marshalPolicy(p)
		}
		return r.keepErr
	}
	r.tell = func(kind, _ string, warn bool) { r.events = append(r.events, fmt.Sprint(kind, " ", warn)) }
	if card != nil {
		r.kept, _ = parsePolicy(card)
	}
	r.inForce = r.kept.Digest()
	return r
}

// start runs it until the end of the test, or the returned function is called, as by
// a crash.
func (r *rig) start() (crash func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.run(ctx) }()
	return func() { cancel(); <-done }
}

func policyOf(names ...string) (p model.FirewallPolicy) {
	for _, n := range names {
		p.Rules = append(p.Rules, model.FirewallRule{Name: n, Action: model.Deny, From: model.ZoneUplink, To: model.ZoneLocal})
	}
	return p
}

func TestAPolicyOnTrial(t *testing.T) {
	a, b := policyOf("a"), policyOf("a", "b")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(nil)
		stop := r.start()
		defer func() { stop() }()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		holds := func(p model.FirewallPolicy, onCard model.FirewallPolicy, on bool) {
			t.Helper()
			synctest.Wait()
			if r.inForce != p.Digest() {
				t.Error("another policy is in force")
			}
			if kept, _ := parsePolicy(r.card); kept.Digest() != onCard.Digest() {
				t.Errorf("the card has %+v", kept)
			}
			if f := r.policies.inForce(false); (f.Trial != "") != on || f.Kept != onCard.Digest() {
				t.Errorf("status: got %+v", f)
			}
		}
		must(r.put(model.FirewallOrder{Policy: a}))
		holds(a, a, false)

		must(r.put(model.FirewallOrder{Policy: b, TrialS: 60}))
		holds(b, a, true)
		time.Sleep(59 * time.Second)
		holds(b, a, true)
		time.Sleep(2 * time.Second) // nobody confirms
		holds(a, a, false)

		must(r.put(model.FirewallOrder{Policy: b, TrialS: 60}))
		time.Sleep(30 * time.Second)
		must(r.put(model.FirewallOrder{Policy: b})) // confirmed
		time.Sleep(2 * time.Minute)
		holds(b, b, false)

		// A trial takes the place of another, with its own time.
		must(r.put(model.FirewallOrder{Policy: a, TrialS: 60}))
		time.Sleep(50 * time.Second)
		must(r.put(model.FirewallOrder{Policy: policyOf("c"), TrialS: 60}))
		time.Sleep(50 * time.Second)
		holds(policyOf("c"), b, true)
		time.Sleep(11 * time.Second)
		holds(b, b, false)

		// The process dies, as with a power cut, while one is on trial.
		must(r.put(model.FirewallOrder{Policy: a, TrialS: 60}))
		stop()
		r = newRig(r.card)
		stop = r.start()
		holds(b, b, false)

		// The kernel does not take the one before back at once.
		must(r.put(model.FirewallOrder{Policy: a, TrialS: 60}))
		r.setErr = errors.New("netlink")
		time.Sleep(65 * time.Second)
		if f := r.policies.inForce(false); f.Trial == "" {
			t.Error("a trial that is in force is not told of")
		}
		r.setErr = nil
		time.Sleep(2 * time.Second)
		holds(b, b, false)

		// What the card does not keep does not hold.
		r.keepErr = errors.New("full")
		if err := r.put(model.FirewallOrder{Policy: a}); err == nil {
			t.Error("it is said to be kept")
		}
		holds(b, b, false)
		if !slices.Contains(r.events, "firewall.trial-over true") {
			t.Errorf("events: got %q", r.events)
		}
	})
}

// TestAPolicyThatCannotBeUndone is tried every second to be, and told of ever more rarely:
// the log of events has room for 512.
func TestAPolicyThatCannotBeUndone(t *testing.T) {
	a, b := policyOf("a"), policyOf("a", "b")
	for name, begin := range map[string]func(*rig) error{
		"on trial": func(r *rig) error {
			err := r.put(model.FirewallOrder{Policy: b, TrialS: 10})
			r.setErr = errors.New("netlink")
			return err
		},
		"for good, and the card is full": func(r *rig) error {
			r.keep = func(model.FirewallPolicy) error {
				r.setErr = errors.New("netlink")
				return errors.New("full")
			}
			if err := r.put(model.FirewallOrder{Policy: b}); err == nil {
				return errors.New("it is said to be kept")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(marshalPolicy(a))
				defer r.start()()
				if err := begin(r); err != nil {
					t.Fatal(err)
				}
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				if f := r.policies.inForce(false); f.Trial != b.Digest() || f.Kept != a.Digest() || r.inForce != b.Digest() {
					t.Errorf("status: got %+v", f)
				}
				if n := len(r.events); n < 2 || n > 20 {
					t.Errorf("%d events in a day", n)
				}
				r.setErr = nil
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if f := r.policies.inForce(false); f.Trial != "" || r.inForce != a.Digest() {
					t.Errorf("afterwards: got %+v", f)
				}
			})
		})
	}
}

func TestPoliciesThatAreRefused(t *testing.T) {
	r := newRig(nil)
	for _, s := range []int{-1, 1, 9, 3601} {
		if err := r.put(model.FirewallOrder{TrialS: s}); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("a trial of %d s: got %v", s, err)
		}
	}
	r.setErr = fmt.Errorf("%w: no such service", lan.ErrPolicy)
	if err := r.put(model.FirewallOrder{Policy: policyOf("a")}); !errors.Is(err, api.ErrInvalid) || r.card != nil {
		t.Errorf("one that does not fit: got %v", err)
	}
}

func TestTheCardsPolicy(t *testing.T) {
	b := marshalPolicy(policyOf("a", "b"))
	if p, err := parsePolicy(b); err != nil || p.Digest() != policyOf("a", "b").Digest() {
		t.Errorf("got %+v, %v", p, err)
	}
	for i := range b {
		damaged := slices.Clone(b)
		damaged[i] ^= 1
		if _, err := parsePolicy(damaged); err == nil {
			t.Errorf("octet %d: damage is not found", i)
		}
	}
	for _, b := range [][]byte{nil, []byte("{}"), marshalPolicy(policyOf("halo-x"))} {
		if p, err := parsePolicy(b); err == nil {
			t.Errorf("%q: got %+v", b, p)
		}
	}
}
