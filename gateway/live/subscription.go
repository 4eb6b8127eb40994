package live

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Bounds of one message of changes. On a slow link, what is urgent waits for one of them.
const (
	maxItems  = 256
	maxOctets = 48 << 10
)

// Bounds of what a request has in it.
const (
	maxID     = 32
	maxNodes  = 64
	maxPrefix = 96
	minPause  = 20 * time.Millisecond
	maxPause  = time.Minute
)

// subscription is what a client wants to hear of one topic.
type subscription struct {
	id     string
	topic  *Topic
	filter Filter

	at    uint64    // up to which change it has been told
	reset bool      // all that there is comes next
	said  uint64    // the last at that the client was told
	mark  time.Time // when it is told the next one, where there is nothing else to tell
	again time.Time // when the source is asked again, after it has failed
}

// answer does what a client asks for.
func (c *session) answer(ctx context.Context, r apitype.LiveRequest) error {
	id := clip(r.ID, maxID)
	switch r.Op {
	case apitype.LiveSubscribe:
		m, err := c.subscribe(ctx, r)
		if err != nil {
			return c.refuse(ctx, id, err)
		}
		for _, m := range m {
			if err := c.write(ctx, m); err != nil {
				return err
			}
		}
		return nil
	case apitype.LiveUnsubscribe:
		before := len(c.subs)
		if c.drop(func(s *subscription) bool { return s.id == r.ID }); len(c.subs) == before {
			return c.refuse(ctx, id, apitype.Refuse(http.StatusNotFound, "", "id: there is no subscription %q", id))
		}
		return c.write(ctx, apitype.LiveMessage{Type: apitype.LiveUnsubscribed, ID: id})
	case apitype.LiveAuth:
		return c.check(ctx, r.Token)
	case apitype.LivePace:
		p := time.Duration(r.IntervalMS) * time.Millisecond
		if p < minPause || p > maxPause {
			return c.refuse(ctx, id, invalid("interval_ms: expected %d to %d, got %d", minPause.Milliseconds(), maxPause.Milliseconds(), r.IntervalMS))
		}
		c.pause = p
		return nil
	}
	return c.refuse(ctx, id, invalid("op: expected subscribe, unsubscribe, auth or pace, got %.40q", r.Op))
}

// drop ends subscriptions.
func (c *session) drop(which func(*subscription) bool) {
	c.subs = slices.DeleteFunc(c.subs, func(s *subscription) bool {
		gone := which(s)
		if w, ok := s.topic.Source.(Watched); ok && gone {
			w.Watch(-1)
		}
		return gone
	})
}

func invalid(format string, args ...any) error {
	return apitype.Refuse(http.StatusUnprocessableEntity, "", format, args...)
}

// subscribe adds a subscription, and returns what the client is told of it.
func (c *session) subscribe(ctx context.Context, r apitype.LiveRequest) ([]apitype.LiveMessage, error) {
	switch {
	case r.ID == "" || len(r.ID) > maxID:
		return nil, invalid("id: expected 1 to %d octets, got %d", maxID, len(r.ID))
	case slices.ContainsFunc(c.subs, func(s *subscription) bool { return s.id == r.ID }):
		return nil, apitype.Refuse(http.StatusConflict, apitype.ProblemSubscriptionTaken, "id: there is a subscription %s already; unsubscribe it, or choose another", r.ID)
	case len(c.subs) >= maxSubscriptions:
		return nil, apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "there are %d subscriptions of this connection already", len(c.subs))
	}
	t, err := c.hub.topic(r.Topic, c.who)
	if err != nil {
		return nil, err
	}
	f, err := c.filter(ctx, t, r)
	if err != nil {
		return nil, err
	}
	newest, _, err := t.Source.News(ctx)
	if err != nil {
		return nil, err
	}
	s := &subscription{id: r.ID, topic: t, filter: f, mark: time.Now().Add(c.hub.mark)}
	gap := false
	switch {
	case r.After != "":
		var ok bool
		if s.at, ok = c.hub.position(t, r.After); !ok || s.at > newest {
			gap = true
		}
	case r.Since != nil:
		s.at = uint64(*r.Since)
		gap = s.at > newest
	case t.Log:
		s.at = newest
	default:
		s.reset = true
	}
	if gap {
		s.at, s.reset = newest, !t.Log
	}
	s.said = s.at
	c.subs = append(c.subs, s)
	if w, ok := t.Source.(Watched); ok {
		w.Watch(1)
	}
	m := []apitype.LiveMessage{{Type: apitype.LiveSubscribed, ID: s.id, At: c.hub.token(t, s.at)}}
	if gap {
		m = append(m, apitype.LiveMessage{Type: apitype.LiveGap, ID: s.id, At: c.hub.token(t, s.at)})
	}
	return m, nil
}

// filter checks what a subscription chooses.
func (c *session) filter(ctx context.Context, t *Topic, r apitype.LiveRequest) (f Filter, err error) {
	events, telemetry := t.Name == apitype.TopicEvents, t.Name == apitype.TopicTelemetry
	most := maxNodes
	switch {
	case events:
		most = 1
	case !telemetry && t.Name != apitype.TopicNodes:
		most = 0
	}
	switch {
	case len(r.Nodes) > most:
		return f, invalid("nodes: expected at most %d with %s, got %d", most, t.Name, len(r.Nodes))
	case len(r.Metrics) > 0 && !telemetry:
		return f, invalid("metrics: expected none with %s", t.Name)
	case len(r.Metrics) > maxNodes:
		return f, invalid("metrics: expected at most %d, got %d", maxNodes, len(r.Metrics))
	case (r.Kind != "" || r.Severity != "" || r.Since != nil) && !events:
		return f, invalid("kind, severity, since: expected none with %s", t.Name)
	case len(r.Kind) > maxPrefix || slices.ContainsFunc(r.Metrics, func(m string) bool { return len(m) > maxPrefix }):
		return f, invalid("kind, metrics: expected at most %d octets", maxPrefix)
	case r.Severity != "" && !slices.Contains([]model.Severity{model.Info, model.Warning, model.Error}, r.Severity):
		return f, invalid("severity: expected info, warning or error, got %.40q", r.Severity)
	case r.Since != nil && (*r.Since < 0 || r.After != ""):
		return f, invalid("since: expected the ID of an event, and no after")
	}
	f = Filter{Metrics: r.Metrics, Kind: r.Kind, Severity: string(r.Severity)}
	for _, ref := range r.Nodes {
		id, err := c.hub.Node(ctx, clip(ref, maxNodes))
		if err != nil {
			return f, err
		}
		f.Nodes = append(f.Nodes, id)
	}
	return f, nil
}

// failed is an error of a source, not of the connection.
type failed struct{ error }

// follow writes what is new of a subscription. again is when to look once more in any
// case.
func (c *session) follow(ctx context.Context, s *subscription) (wrote bool, again time.Time, err error) {
	now := time.Now()
	if now.Before(s.again) {
		return false, s.again, nil
	}
	newest, _, err := s.topic.Source.News(ctx)
	switch {
	case err != nil:
		err = failed{err}
	case newest != s.at || s.reset:
		wrote, err = c.catchUp(ctx, s)
	}
	if f, ok := errors.AsType[failed](err); ok {
		s.again = now.Add(c.hub.retry)
		return true, s.again, c.refuse(ctx, s.id, f.error)
	}
	if err != nil || wrote || s.said == s.at {
		return wrote, time.Time{}, err
	}
	// The filter chose nothing for a while: an old mark would be in a gap some day.
	if now.Before(s.mark) {
		return false, s.mark, nil
	}
	return true, time.Time{}, c.said(ctx, s, apitype.LiveMessage{})
}

// said writes the last message of changes, or one without any, which says where the client
// is now.
func (c *session) said(ctx context.Context, s *subscription, m apitype.LiveMessage) error {
	m.Type, m.ID, m.At = apitype.LiveChanges, s.id, c.hub.token(s.topic, s.at)
	s.said, s.mark = s.at, time.Now().Add(c.hub.mark)
	return c.write(ctx, m)
}

// catchUp writes what came since the client was told last.
func (c *session) catchUp(ctx context.Context, s *subscription) (wrote bool, err error) {
	after := s.at
	if s.reset {
		after = 0
	}
	to, whole, list, err := s.topic.Source.Since(ctx, s.filter, after)
	if err != nil {
		return false, failed{err}
	}
	if !whole {
		s.at, s.reset = to, !s.topic.Log
		if err := c.write(ctx, apitype.LiveMessage{Type: apitype.LiveGap, ID: s.id, At: c.hub.token(s.topic, to)}); err != nil {
			return true, err
		}
		s.said = to
		if s.topic.Log {
			return true, nil
		}
		if to, whole, list, err = s.topic.Source.Since(ctx, s.filter, 0); err != nil {
			return true, failed{err}
		}
		if !whole {
			return true, failed{errors.New("a source of what is does not know all that there is")}
		}
		wrote = true
	}
	m, octets := apitype.LiveMessage{Reset: s.reset}, 0
	for change, err := range list {
		if err != nil {
			return wrote, failed{err}
		}
		if len(m.Items)+len(m.Gone) == maxItems || octets >= maxOctets {
			m.Type, m.ID, m.More = apitype.LiveChanges, s.id, true
			if err := c.write(ctx, m); err != nil {
				return true, err
			}
			m, octets, wrote = apitype.LiveMessage{}, 0, true
		}
		if change.Gone != "" {
			m.Gone = append(m.Gone, change.Gone)
			octets += len(change.Gone)
			continue
		}
		b, err := json.Marshal(change.Item)
		if err != nil {
			return wrote, failed{err}
		}
		m.Items = append(m.Items, b)
		octets += len(b)
	}
	first := !s.reset && !wrote && octets == 0
	s.at, s.reset = to, false
	if first {
		return false, nil // the filter chooses none of it
	}
	return true, c.said(ctx, s, m)
}
