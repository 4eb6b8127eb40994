package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"halo.internal/identity/nodecode"
	"halo.internal/identity/operator"
	"halo.internal/local"
	"halo.internal/mesh/api"
	"halo.internal/mesh/door"
	"halo.internal/mesh/listen"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
)

// keepDoor lets operators in wherever they may come from, until ctx ends.
func (m *core) keepDoor(ctx context.Context, s side, routes http.Handler) error {
	d, err := door.New(door.Config{Key: m.id.Key, Network: m.net, Standing: s.standing, Routes: routes, Event: m.events.Add, Log: m.Log})
	if err != nil {
		return err
	}
	return d.Run(ctx, func() []listen.At { return door.Places(m.net) })
}

// standing is what a device knows of operators' certificates, by the list of
// members that it goes by and the highest epoch that it has heard of.
func (m *core) standingBy(l peerlist.List, epoch uint64) operator.Standing {
	now, quality := m.clock.Now()
	return operator.Standing{
		Epoch: max(epoch, l.Epoch), Withdrawn: l.Operators, ListEpoch: l.Epoch, ListIssued: l.Issued,
		Now: now, Sure: quality != model.ClockNone,
	}
}

func (n *node) standing() operator.Standing {
	n.mu.Lock()
	defer n.mu.Unlock()
	var epoch uint64
	if n.member != nil {
		epoch = n.member.Epoch
	}
	if n.heard != nil {
		epoch = max(epoch, n.heard.Stamp.Epoch)
	}
	return n.standingBy(n.list, epoch)
}

// standing of a gateway: it is the one who says. What it was told last holds,
// also before gateway-api is up.
func (g *gateway) standing() operator.Standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := peerlist.List{Operators: g.known.Operators}
	if g.known.Announce != nil {
		l.Epoch = g.known.Announce.Epoch
	}
	return g.standingBy(l, 0)
}

// Kinds of events of the device's code, and of who has logged in with it.
const (
	eventCodeTaken   = "code.accepted" // field where
	eventCodeRefused = "code.refused"  // fields where, failures
	eventConsoleUsed = "console.used"  // somebody at a console has asked for more than to look, or for much at once; fields where, did
)

// bookConsole makes events of what who has logged in at a console asks for, as the door does
// of what operators do.
func (m *core) bookConsole(routes http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		where := r.Header.Get(local.HeaderConsole)
		if where != "" && (r.Method != http.MethodGet || r.URL.Path == local.RouteSupport) {
			where, did := fmt.Sprintf("%.64s", where), fmt.Sprintf("%s %.128s", r.Method, r.URL.Path)
			m.events.Add(eventConsoleUsed, model.Info, "somebody at the console "+where+" asked this device for "+did, "where", where, "did", did)
		}
		routes.ServeHTTP(w, r)
	})
}

// codeTellEvery of wrong codes there is an event, beyond the first.
const codeTellEvery = 10

// checkCode returns nil when somebody has typed the code of that generation.
func (m *core) checkCode(t model.CodeTry, generation uint32) error {
	if len(t.Where) > 64 || len(t.Code) > 128 {
		return fmt.Errorf("%w: expected a code of at most 128 octets from a place of at most 64", api.ErrInvalid)
	}
	if wait := m.codes.Wait(t.Where); wait > 0 {
		return fmt.Errorf("%w: too many wrong codes; try again in %s", api.ErrBusy, wait.Round(time.Second))
	}
	code, err := nodecode.New(m.id.Key, m.net, generation)
	if err != nil {
		return err
	}
	err = nodecode.Check(code, t.Code)
	switch {
	case err == nil:
		m.codes.Succeed(t.Where)
		m.events.Add(eventCodeTaken, model.Info, "somebody has typed this device's code", "where", t.Where)
		return nil
	case errors.Is(err, nodecode.ErrWrong):
		if n := m.codes.Fail(t.Where); n == 1 || n%codeTellEvery == 0 {
			m.events.Add(eventCodeRefused, model.Warning, "somebody has typed a wrong code", "where", t.Where, "failures", fmt.Sprint(n))
		}
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return err
}

// CheckCode of a gateway.
func (g *gateway) CheckCode(t model.CodeTry) error {
	g.mu.Lock()
	generation := g.known.Operators.Codes
	g.mu.Unlock()
	return g.checkCode(t, generation)
}

// CheckCode of a node: there is nobody who could show its code before it has
// joined.
func (n *node) CheckCode(t model.CodeTry) error {
	n.mu.Lock()
	joined, generation := n.member != nil, n.list.Operators.Codes
	n.mu.Unlock()
	if !joined {
		return fmt.Errorf("%w: this node has not joined, and has no code yet", api.ErrNone)
	}
	return n.checkCode(t, generation)
}
