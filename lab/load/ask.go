package load

import (
	"context"
	"errors"
	"net/url"
	"time"

	"halo.internal/model/apitype"
	"halo.internal/model/wire/wiretest"
)

// Asked is how long answers of the API took, by the clock of who asks over TLS: until their
// last octet.
type Asked struct {
	What string `json:"what"`
	Times
	CPUMS  float64 `json:"cpu_ms"` // of gateway-api for each, with all that it did meanwhile
	Octets int     `json:"octets"` // of the last answer
}

// askEvery is how long who asks waits before the next question: one caller gets 50 answers a
// second for as long as it likes.
const askEvery = 25 * time.Millisecond

// question is one that people's programs ask.
type question struct {
	what, path string
	query      func(i int) url.Values
}

// questions are about all nodes, and those with a past in turn.
func (r *run) questions() []question {
	const most = "500"
	of := func(q url.Values) func(int) url.Values { return func(int) url.Values { return q } }
	return []question{
		{"nodes", "/v1/nodes", of(url.Values{"limit": {most}})},
		{"latest", "/v1/telemetry/latest", func(i int) url.Values {
			return url.Values{"node": {r.players[i%len(r.players)].ID()}, "limit": {most}}
		}},
		{"latest of all", "/v1/telemetry/latest", of(url.Values{"limit": {most}})},
		{"24 h", "/v1/telemetry/range", func(i int) url.Values {
			old := 1 // the gateway is the first
			if r.BacklogNodes > 0 {
				old += i % r.BacklogNodes
			}
			return url.Values{"node": {r.players[old].ID()}, "metric": {wiretest.Schema().Metrics[0].Name}, "step_s": {"60"},
				"from": {time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)}}
		}},
		{"topology", "/v1/topology", of(nil)},
	}
}

// ask asks each question so many times, one after the other.
func (r *run) ask(ctx context.Context) error {
	for _, q := range r.questions() {
		if r.Asks == 0 {
			return nil
		}
		before, err := r.gateway.Usage()
		if err != nil {
			return err
		}
		a, took := Asked{What: q.what}, make([]time.Duration, 0, r.Asks)
		for i := range r.Asks {
			begin := time.Now()
			b, err := r.admin.Fetch(ctx, q.path, q.query(i))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.meter.failed("API", err)
			} else {
				took, a.Octets = append(took, time.Since(begin)), len(b)
			}
			if err := r.pause(ctx, askEvery); err != nil {
				return err
			}
		}
		after, err := r.gateway.Usage()
		if err != nil {
			return err
		}
		a.Times, a.CPUMS = timesOf(took), (after.CPU-before.CPU).Seconds()*1000/float64(r.Asks)
		r.figures.Asked = append(r.figures.Asked, a)
	}
	return nil
}

// watch hears of all readings as a page of live values does, until ctx ends.
func (r *run) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.hear(ctx); ctx.Err() == nil {
			r.meter.failed("live", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(backAfter):
		}
	}
}

func (r *run) hear(ctx context.Context) error {
	live, err := r.admin.Live(ctx, apitype.LiveRequest{Op: apitype.LiveSubscribe, ID: "t", Topic: apitype.TopicTelemetry})
	if err != nil {
		return err
	}
	defer live.Close()
	for begun := false; ; {
		m, err := live.Next(ctx)
		if err != nil {
			return err
		}
		at := time.Now()
		switch {
		case m.Type == apitype.LiveGap:
			return errors.New("some of what came is not known any more")
		case m.Type != apitype.LiveChanges:
		case !begun: // all that there is
			begun = !m.More
		default:
			r.heard(m, at)
		}
	}
}

// alarmEvery is how long it is between two urgent readings.
const alarmEvery = 50 * time.Millisecond

// alarms has one device after the other measure something urgent, and waits until that has
// been told.
func (r *run) alarms(ctx context.Context) error {
	for i := range r.Asks {
		select {
		case r.players[i%len(r.players)].alarm <- struct{}{}:
		default: // it has not come to the last one yet
		}
		if err := r.pause(ctx, alarmEvery); err != nil {
			return err
		}
	}
	for end := time.Now().Add(alarmsTold); r.meter.read().urgent.Count < r.Asks && time.Now().Before(end); {
		if err := r.pause(ctx, alarmEvery); err != nil {
			return err
		}
	}
	r.figures.Urgent = r.meter.read().urgent
	return nil
}

// alarmsTold is how long is waited for the last of them: what a device measures anew takes the
// place of what was not told yet.
const alarmsTold = 2 * time.Second
