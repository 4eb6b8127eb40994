// Package meshlink keeps gateway-api and halo-mesh of one mind: it hands over
// the admitted peers, what is to be announced, the names of neurons and the claim
// code, again after each restart of either, and remembers halo-mesh's last status.
package meshlink

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
)

// Client is the part of halo-mesh's socket that is used.
type Client interface {
	// Brief returns the status without what the kernel has to be asked for.
	Brief(context.Context) (model.MeshStatus, error)
	PutPeers(context.Context, []model.AdmittedPeer) error
	PutAnnounce(context.Context, model.Announce) error
	PutOperators(context.Context, model.Operators) error
	PutNames(context.Context, []model.BrainName) error
	PutRevoked(ctx context.Context, ids []string) error
	PutClaimCode(ctx context.Context, code string) error
	DeleteClaimCode(context.Context) error
	OfferTime(context.Context, model.TimeOffer) error
	PutVisitors(context.Context, []model.Visitor) error
}

var _ Client = (*local.Mesh)(nil)

// Names of the checks that the link reports; they must be declared.
const (
	CheckMesh    = "halo-mesh"
	CheckOverlay = "overlay"
)

// Config is what New needs.
type Config struct {
	Client   Client
	Clock    *clock.Clock
	Health   *health.Graph
	Missing  health.State // what the absence of halo-mesh means: Failed on a board, Degraded on a laptop
	Peers    func(context.Context) ([]model.AdmittedPeer, error)
	Revoked  func(context.Context) ([]string, error)
	Changes  <-chan struct{} // the peers have changed
	Announce func() model.Announce
	// Operators tells which certificates are over; it is asked at each look.
	Operators func(context.Context) (model.Operators, error)
	// Names are those of the components of neurons; it is asked at each look.
	Names   func(context.Context) ([]model.BrainName, error)
	Heard   func(ctx context.Context, epoch uint64)       // told, at each look, of the highest epoch that nodes have shown evidence of
	LeftOut func(ctx context.Context, ids []string) error // told, at each look, of members that the network does not count as such
	// Visitors tells who besides members has a place in the overlay; it is asked at each
	// look. nil: nobody.
	Visitors func(context.Context) ([]model.Visitor, error)
	// Firewall is told, at each look, which policy is in force, and when that was asked.
	// nil: nobody.
	Firewall func(ctx context.Context, asked time.Time, f *model.FirewallInForce) error
	Every    time.Duration // between looks at halo-mesh
}

// Link may be used from any goroutine. Run has to be running.
type Link struct {
	Config
	poke chan struct{}

	mu     sync.Mutex // guards what follows
	status *model.MeshStatus
	code   string // claim code to be shown; empty: to be erased
}

// New returns a link.
func New(c Config) *Link { return &Link{Config: c, poke: make(chan struct{}, 1)} }

// Last returns halo-mesh's last status, or false while it does not answer. It is
// a brief one.
func (l *Link) Last() (model.MeshStatus, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status == nil {
		return model.MeshStatus{}, false
	}
	return *l.status, true
}

// Aside tells whether another gateway with this one's key lives, for which halo-mesh
// has stood down.
func (l *Link) Aside() bool {
	s, ok := l.Last()
	return ok && s.Twin != nil && s.Twin.StandsDown
}

// ShowClaimCode has the code shown where the device's holder sees it; an empty
// one has it erased.
func (l *Link) ShowClaimCode(code string) {
	l.mu.Lock()
	l.code = code
	l.mu.Unlock()
	l.Look()
}

// OfferTime hands on the time of somebody who has logged in, if halo-mesh knows none
// that is better: it decides. Who has logged in does not wait for one that hangs.
func (l *Link) OfferTime(ctx context.Context, o model.TimeOffer) error {
	if l.Clock.Quality() != model.ClockNone {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, local.AnswerWait)
	defer cancel()
	if err := l.Client.OfferTime(ctx, o); err != nil {
		return fmt.Errorf("halo-mesh does not take the time of a login: %w", err)
	}
	l.Look() // it may have another quality now
	return nil
}

// Look has the link look at halo-mesh at once: what is to be announced has
// changed.
func (l *Link) Look() {
	select {
	case l.poke <- struct{}{}:
	default: // one is waiting already
	}
}

// told is what halo-mesh has been told since it was last found to have started.
type told struct {
	peers, announce, code bool
	operators             *model.Operators  // nil: none
	names                 []model.BrainName // nil: none
	visitors              *[]model.Visitor  // nil: none
	shown                 string
}

// Run polls halo-mesh until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	var t told
	tick := time.NewTicker(l.Every)
	defer tick.Stop()
	for {
		l.round(ctx, &t)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.poke:
		case <-l.Changes:
			t.peers = false
		}
	}
}

func (l *Link) round(ctx context.Context, t *told) {
	asked := time.Now()
	s, err := l.Client.Brief(ctx)
	if ctx.Err() != nil {
		return
	}
	asked = asked.Add(-time.Duration(s.StaleMS) * time.Millisecond)
	l.mu.Lock()
	code := l.code
	if err != nil {
		l.status = nil
	} else {
		l.status = &s
	}
	l.mu.Unlock()
	if err != nil {
		*t = told{} // it may have restarted by the time it answers
		l.Clock.SetQuality(model.ClockNone)
		l.Health.Set(CheckMesh, l.Missing, err.Error())
		l.Health.Set(CheckOverlay, l.Missing, "halo-mesh makes it")
		return
	}
	l.Clock.SetQuality(s.Clock)
	if s.HeardEpoch != 0 {
		l.Heard(ctx, s.HeardEpoch)
	}
	if s.Announcing == nil || *s.Announcing != l.Announce() {
		t.announce = false // a restart between two polls shows here
		if s.Announcing == nil {
			t.peers, t.operators, t.visitors = false, nil, nil
		}
	}
	if !s.Named { // it keeps them in RAM alone
		t.names = nil
	}
	var leftErr error
	if len(s.LeftOut) > 0 {
		leftErr = l.LeftOut(ctx, s.LeftOut)
	}
	if err := errors.Join(leftErr, l.tellInTime(ctx, t, code, asked, s.Firewall)); err != nil && ctx.Err() == nil {
		l.Health.Set(CheckMesh, health.Degraded, err.Error())
	} else if l.Aside() {
		l.Health.Set(CheckMesh, health.Degraded, "another gateway with this one's key serves the network, and this one stands down: no node can join it. "+
			"Two cards of this network's gateway are in use: switch one of the two off")
	} else {
		l.Health.Set(CheckMesh, health.OK, "")
	}
	if s.OverlayV4 == "" {
		l.Health.Set(CheckOverlay, health.Starting, "halo-mesh has no overlay address yet")
	} else {
		l.Health.Set(CheckOverlay, health.OK, "")
	}
}

// tellInTime is tell, but says in /health when that takes so long that halo-mesh
// may hang. It is not cut off: what halo-mesh writes may wait for a slow card.
func (l *Link) tellInTime(ctx context.Context, t *told, code string, asked time.Time, f *model.FirewallInForce) error {
	done := make(chan error, 1)
	go func() {
		err := l.tell(ctx, t, code)
		if l.Firewall != nil {
			err = errors.Join(err, l.Firewall(ctx, asked, f))
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(local.AnswerWait):
		l.Health.Set(CheckMesh, l.Missing, fmt.Sprintf("halo-mesh has not taken what it is told within %s", local.AnswerWait))
		return <-done
	}
}

// tell hands over what halo-mesh has not taken yet.
func (l *Link) tell(ctx context.Context, t *told, code string) error {
	var errs []error
	// Before what has a list of members signed: none must be without it.
	if o, err := l.Operators(ctx); err != nil {
		errs = append(errs, err)
	} else if t.operators == nil || !reflect.DeepEqual(*t.operators, o) {
		err := l.Client.PutOperators(ctx, o)
		if t.operators = nil; err == nil {
			t.operators = &o
		}
		errs = append(errs, err)
	}
	if !t.announce {
		err := l.Client.PutAnnounce(ctx, l.Announce())
		t.announce = err == nil
		errs = append(errs, err)
	}
	if !t.peers {
		// That somebody is gone is told first: it ends what they could reach. That they
		// were revoked is told whatever becomes of that.
		peers, err := l.Peers(ctx)
		if err == nil {
			err = l.Client.PutPeers(ctx, peers)
		}
		gone, goneErr := l.Revoked(ctx)
		if goneErr == nil {
			goneErr = l.Client.PutRevoked(ctx, gone)
		}
		t.peers = err == nil && goneErr == nil
		errs = append(errs, err, goneErr)
	}
	if names, err := l.Names(ctx); err != nil {
		errs = append(errs, err)
	} else if t.names == nil || !reflect.DeepEqual(t.names, names) {
		err := l.Client.PutNames(ctx, names)
		if t.names = nil; err == nil {
			t.names = append([]model.BrainName{}, names...)
		}
		errs = append(errs, err)
	}
	if l.Visitors != nil {
		if v, err := l.Visitors(ctx); err != nil {
			errs = append(errs, err)
		} else if t.visitors == nil || !slices.Equal(*t.visitors, v) {
			err := l.Client.PutVisitors(ctx, v)
			if len(v) == 0 && errors.Is(err, local.ErrNone) {
				err = nil // one that knows no visitors has none
			}
			if t.visitors = nil; err == nil {
				t.visitors = &v
			}
			errs = append(errs, err)
		}
	}
	if !t.code || t.shown != code {
		var err error
		if code == "" {
			err = l.Client.DeleteClaimCode(ctx)
			if errors.Is(err, local.ErrNone) {
				err = nil
			}
		} else {
			err = l.Client.PutClaimCode(ctx, code)
		}
		t.code, t.shown = err == nil, code
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("halo-mesh does not take what it is told: %w", err)
	}
	return nil
}
