package registry

import (
	"fmt"
	"time"

	"halo.internal/model"
)

// Events of a node's state.
const (
	kindState  = "node.state"
	fieldState = "state"
	tellEvery  = time.Minute // between two of one node: some states come and go
)

// told is what events have said of a node's state.
type told struct {
	state string    // the last that was told; empty: none came yet
	at    time.Time // when, in this process
	turns int       // how often it has changed since
}

// stateNews is an event to be added.
type stateNews struct {
	node, from, to, missing string
	changes                 int
}

// stateCame looks at the state that a heartbeat has brought; mu is held. A
// change after a quiet minute is told at once, others when a minute has passed.
func (r *Registry) stateCame(id string, l *live, old string) []stateNews {
	now := l.status.State
	switch {
	case now == "":
		return nil
	case l.told.state == "":
		l.told.state = now
		return nil
	case old != "" && old != now:
		l.told.turns++
	}
	if l.told.turns == 0 && l.told.state == now {
		return nil
	}
	if at := l.told.at.Add(tellEvery); time.Now().Before(at) {
		r.plan(&r.tellBy, at)
		return nil
	}
	return []stateNews{l.tellState(id)}
}

// tellState takes what there is to tell of a node; mu is held.
func (l *live) tellState(id string) stateNews {
	n := stateNews{id, l.told.state, l.status.State, l.status.Missing, l.told.turns}
	l.told = told{state: l.status.State, at: time.Now()}
	return n
}

// stateDue returns what is to be told by now.
func (r *Registry) stateDue(now time.Time) []stateNews {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tellBy.IsZero() || now.Before(r.tellBy) {
		return nil
	}
	r.tellBy = time.Time{}
	var news []stateNews
	for id, l := range r.live {
		if l.told.turns == 0 {
			continue
		}
		if at := l.told.at.Add(tellEvery); now.Before(at) {
			r.plan(&r.tellBy, at)
		} else {
			news = append(news, l.tellState(id))
		}
	}
	return news
}

func (r *Registry) tell(news []stateNews) {
	for _, n := range news {
		severity := model.Info
		if n.to == "failed" || n.to == "degraded" {
			severity = model.Warning
		}
		fields := map[string]string{fieldState: n.to, "missing": n.missing}
		text := fmt.Sprintf("the node went from %s to %s", n.from, n.to)
		if n.from == n.to {
			text = fmt.Sprintf("the node changed its state %d times and is %s again", n.changes, n.to)
		} else if n.changes > 1 {
			text += fmt.Sprintf(", after %d changes", n.changes)
		}
		if n.changes > 1 {
			fields["changes"] = fmt.Sprint(n.changes)
		}
		r.events.Add(kindState, severity, n.node, text, fields)
	}
}
