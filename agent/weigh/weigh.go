// Package weigh decides of each reading what it is worth. By rules that people set, a value
// that has hardly changed is not sent, which saves airtime, and one beyond a limit is sent
// at once and is an event, whether the gateway can be reached or not.
//
// Metrics without a rule are sent as they are made. Times are counted by the monotonic
// clock: the other one may be set at any time.
package weigh

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/model"
)

// Rule is what is to be done with a metric.
type Rule struct {
	Metric   string        // a name, or its beginning and a *
	DeadBand float64       // a value within it of what was sent last is not sent
	AtMost   time.Duration // but after that in any case; 0: DefaultAtMost
	// Adaptive has the time between two values of a steady metric double, from that
	// between two samples up to AtMost; what leaves the dead band is sent at once, and it
	// begins anew.
	Adaptive bool

	Above, Below *float64 // limits; nil: none
	Hysteresis   float64  // how far it has to come back
	For          time.Duration
	Severity     model.Severity // of the event; empty: warning
}

// DefaultAtMost is how long a metric may be silent because it is steady.
const DefaultAtMost = 15 * time.Minute

// Bounds of rules.
const (
	MaxRules  = 64
	maxStates = 1024      // metrics for which a rule is
	gone      = time.Hour // that a metric was not read: it may be forgotten for another
	longest   = 24 * time.Hour
)

// Check tells what is wrong with a rule.
func (r Rule) Check() error {
	var errs []error
	name, _ := strings.CutSuffix(r.Metric, "*")
	if name == "" || len(name) > 96 || strings.ContainsAny(name, "* \t") {
		errs = append(errs, fmt.Errorf("name: expected a metric such as i2c.bme280.temperature_c, or the beginning of some and a *, got %.40q", r.Metric))
	}
	for _, f := range []struct {
		key string
		v   float64
	}{{"dead_band", r.DeadBand}, {"hysteresis", r.Hysteresis}} {
		if !(f.v >= 0) || math.IsInf(f.v, 0) {
			errs = append(errs, fmt.Errorf("%s: expected a number of 0 or more, got %v", f.key, f.v))
		}
	}
	for _, f := range []struct {
		key string
		v   time.Duration
	}{{"at_most", r.AtMost}, {"for", r.For}} {
		if f.v < 0 || f.v > longest {
			errs = append(errs, fmt.Errorf("%s: expected 0s to %v, got %v", f.key, longest, f.v))
		}
	}
	switch {
	case r.Above != nil && (math.IsNaN(*r.Above) || math.IsInf(*r.Above, 0)), r.Below != nil && (math.IsNaN(*r.Below) || math.IsInf(*r.Below, 0)):
		errs = append(errs, errors.New("above, below: expected numbers"))
	case r.Above != nil && r.Below != nil && !(*r.Above-r.Hysteresis >= *r.Below+r.Hysteresis):
		errs = append(errs, fmt.Errorf("above, below: expected %v to be above %v by twice the hysteresis", *r.Above, *r.Below))
	}
	switch r.Severity {
	case "", model.Info, model.Warning, model.Error:
	default:
		errs = append(errs, fmt.Errorf("severity: expected info, warning or error, got %.20q", r.Severity))
	}
	return errors.Join(errs...)
}

func (r Rule) matches(metric string) bool {
	if beginning, ok := strings.CutSuffix(r.Metric, "*"); ok {
		return strings.HasPrefix(metric, beginning)
	}
	return r.Metric == metric
}

// Events of limits; fields metric, value, limit, unit, and gateway: away, where it could
// not be reached when it happened. And one with the field metric: the first that no rule is
// followed for, as there are too many.
const (
	EventBeyond = "telemetry.limit.crossed"
	EventWithin = "telemetry.limit.cleared"
	EventFull   = "telemetry.rules.full"
)

// Weigher weighs readings; Weigh may be called from any goroutine, for each metric from
// one.
type Weigher struct {
	rules []Rule
	tell  func(kind string, s model.Severity, message string, fields map[string]string)
	away  func() bool
	guard chan struct{} // a lock; events are made outside of it
	seen  map[string]*metric
	full  bool // and that was told
}

// metric is what is remembered of one.
type metric struct {
	rule   *Rule
	sent   bool
	last   float64
	at     time.Time
	step   time.Duration // see Rule.Adaptive
	before time.Time     // when it was read last
	beyond time.Time     // since when it is beyond its limit; zero: it is not
	alarm  bool
}

// New returns a weigher. away tells whether the gateway can't be reached.
func New(rules []Rule, away func() bool, tell func(kind string, s model.Severity, message string, fields map[string]string)) *Weigher {
	return &Weigher{rules: rules, tell: tell, away: away, guard: make(chan struct{}, 1), seen: map[string]*metric{}}
}

// Weigh takes out the values that are not worth sending, and marks those that are urgent.
func (w *Weigher) Weigh(_ time.Time, readings []collect.Reading) {
	if len(w.rules) == 0 {
		return
	}
	now := time.Now()
	var events []func()
	w.guard <- struct{}{}
	for i := range readings {
		r := &readings[i]
		if !r.Value.Present {
			continue
		}
		n := r.Metric.Number(r.Value)
		if math.IsNaN(n) {
			continue
		}
		m, refused := w.of(r.Metric.Name, now)
		if refused != nil {
			events = append(events, refused)
		}
		if m == nil {
			continue
		}
		crossed, event := w.limit(m, r, n, now)
		if event != nil {
			events = append(events, event)
		}
		r.Urgent = r.Urgent || m.alarm
		if !m.worth(n, now, crossed) {
			r.Value.Present, r.Value.Bits = false, 0
		}
	}
	<-w.guard
	for _, tell := range events {
		tell()
	}
}

// of is what is remembered of a metric; nil: there is no rule for it, or there are too many
// metrics already for which there is one, which is told once.
func (w *Weigher) of(name string, now time.Time) (m *metric, event func()) {
	if m := w.seen[name]; m != nil {
		return m, nil
	}
	i := slices.IndexFunc(w.rules, func(r Rule) bool { return r.matches(name) })
	if i < 0 {
		return nil, nil
	}
	if len(w.seen) >= maxStates {
		maps.DeleteFunc(w.seen, func(_ string, m *metric) bool { return now.Sub(m.before) > gone })
	}
	if len(w.seen) >= maxStates {
		if w.full {
			return nil, nil
		}
		w.full = true
		return nil, func() {
			w.tell(EventFull, model.Warning, fmt.Sprintf("rules are followed for %d metrics, and for no further one: %s and others are sent as they are made, and no limit counts for them. Rules for fewer metrics would do", maxStates, name), map[string]string{"metric": name})
		}
	}
	w.full = false
	m = &metric{rule: &w.rules[i]}
	w.seen[name] = m
	return m, nil
}

// worth decides whether a value is sent.
func (m *metric) worth(n float64, now time.Time, crossed bool) bool {
	r := m.rule
	between := now.Sub(m.before)
	if m.before.IsZero() {
		between = 0
	}
	m.before = now
	if r.DeadBand == 0 && !r.Adaptive {
		return true
	}
	most := r.AtMost
	if most == 0 {
		most = DefaultAtMost
	}
	within := m.sent && math.Abs(n-m.last) <= r.DeadBand
	silent := most
	if r.Adaptive {
		silent = min(m.step, most)
	}
	// A little early is in time: the next sample would be late by a whole interval.
	if within && !crossed && now.Sub(m.at) < silent-between/2 {
		return false
	}
	if within {
		m.step = min(max(2*m.step, between), most)
	} else {
		m.step = 0
	}
	m.sent, m.last, m.at = true, n, now
	return true
}

// limit judges a value by the limits, and returns what is to be told.
func (w *Weigher) limit(m *metric, r *collect.Reading, n float64, now time.Time) (crossed bool, event func()) {
	rule := m.rule
	var edge *float64
	switch {
	case rule.Above != nil && n > *rule.Above:
		edge = rule.Above
	case rule.Below != nil && n < *rule.Below:
		edge = rule.Below
	}
	switch {
	case edge != nil && m.alarm:
		return false, nil
	case edge != nil:
		if m.beyond.IsZero() {
			m.beyond = now
		}
		if now.Sub(m.beyond) < rule.For {
			return false, nil
		}
		m.alarm = true
		severity := rule.Severity
		if severity == "" {
			severity = model.Warning
		}
		return true, w.event(EventBeyond, severity, fmt.Sprintf("%s is %v%s, beyond its limit of %v", r.Metric.Name, n, unit(r.Metric.Unit), *edge), r, n, *edge)
	case m.alarm && (rule.Above == nil || n <= *rule.Above-rule.Hysteresis) && (rule.Below == nil || n >= *rule.Below+rule.Hysteresis):
		m.alarm, m.beyond = false, time.Time{}
		return true, w.event(EventWithin, model.Info, fmt.Sprintf("%s is %v%s, within its limits again", r.Metric.Name, n, unit(r.Metric.Unit)), r, n, math.NaN())
	case !m.alarm:
		m.beyond = time.Time{}
	}
	return false, nil
}

func unit(u string) string {
	if u == "" {
		return ""
	}
	return " " + u
}

func (w *Weigher) event(kind string, s model.Severity, text string, r *collect.Reading, n, edge float64) func() {
	f := map[string]string{"metric": r.Metric.Name, "value": strconv.FormatFloat(n, 'g', -1, 64)}
	if r.Metric.Unit != "" {
		f["unit"] = r.Metric.Unit
	}
	if !math.IsNaN(edge) {
		f["limit"] = strconv.FormatFloat(edge, 'g', -1, 64)
	}
	if w.away() {
		f["gateway"] = "away"
		text += "; the gateway could not be reached when that happened"
	}
	return func() { w.tell(kind, s, text, f) }
}
