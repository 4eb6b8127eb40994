// Package timeline keeps how each recovery of the device went, stage by stage:
// from the start of the machine, or from where the chain from the radio to the
// gateway broke, until all of it was whole again. Recorder assembles them without
// I/O, from what was seen at which monotonic time; Store keeps the last of them on
// the card, with few writes.
package timeline

import (
	"slices"
	"strings"
	"time"

	"halo.internal/model"
)

// Bounds.
const (
	Kept     = 24 // recoveries
	maxSteps = 8  // of one; the first half and the last
	maxText  = 200
	// Blip is how long a link may be broken for without its being a recovery that
	// anybody wants to read of.
	Blip = 5 * time.Second
)

// Facts are what is seen at a time.
type Facts struct {
	Whole   bool   // all of the chain works
	Broken  string // otherwise its first broken link
	Detail  string // what is wrong with it
	Reached map[model.RecoveryStage]bool
	// Acked counts what the gateway has acknowledged; it may begin anew.
	Acked uint64
}

// Recorder assembles recoveries. Its methods are for one goroutine. Times are
// since the start of the kernel, and never go back.
type Recorder struct {
	boot uint64
	wall func() (time.Time, model.ClockQuality)

	past  []model.Recovery // that are over, oldest first
	now   *model.Recovery  // that lasts
	acked uint64           // when the chain was last not whole; telemetry has to come after
	known bool             // acked is set
	until time.Duration    // when the chain was last not whole
}

// New returns a recorder for the boot of that number, which goes on where kept
// ended: of the same boot when only the process was restarted. at is the present
// time. A machine that has just started, and one whose process has, begin with a
// recovery.
func New(boot uint64, kept []model.Recovery, restarted bool, at time.Duration, wall func() (time.Time, model.ClockQuality)) *Recorder {
	r := &Recorder{boot: boot, wall: wall}
	for _, k := range kept {
		if k.State == model.RecoveryLasts && k.Boot == boot && restarted {
			r.now = &k // the process was restarted in the midst of it
			continue
		}
		if k.State == model.RecoveryLasts {
			k.State = model.RecoveryCut
		}
		r.past = append(r.past, k)
	}
	switch {
	case r.now != nil:
		r.step(at, "restart", "halo-mesh was restarted")
	case restarted:
		r.begin(model.CauseRestart, "", "halo-mesh was restarted", at)
	default:
		r.begin(model.CausePowerOn, "", "", 0)
	}
	return r
}

func (r *Recorder) begin(cause model.RecoveryCause, check, detail string, at time.Duration) {
	r.now = &model.Recovery{Boot: r.boot, Cause: cause, Check: cut(check), Detail: cut(detail), State: model.RecoveryLasts, BeganMS: at.Milliseconds(), Stages: []model.RecoveryMark{}}
	r.known = false
}

// Lasting returns for how long the recovery has lasted that is not over.
func (r *Recorder) Lasting(now time.Duration) (time.Duration, bool) {
	if r.now == nil {
		return 0, false
	}
	return now - time.Duration(r.now.BeganMS)*time.Millisecond, true
}

// Look takes what is seen, and returns whether a recovery has ended by it.
func (r *Recorder) Look(now time.Duration, f Facts) (ended bool) {
	if r.now == nil {
		if f.Whole {
			return false
		}
		r.begin(model.CauseBroken, f.Broken, f.Detail, now)
		// What holds at the break is no stage of its recovery.
		for s, reached := range f.Reached {
			if reached {
				r.now.Stages = append(r.now.Stages, model.RecoveryMark{Name: string(s), MS: -1})
			}
		}
	}
	if !f.Whole {
		r.until = now
	}
	// What is acknowledged while something is broken may have been on its way.
	if !r.known || !f.Whole || f.Acked < r.acked {
		r.acked, r.known = f.Acked, true
	}
	for _, s := range model.RecoveryStages {
		reached := f.Reached[s]
		if s == model.StageTelemetry {
			reached = reached && f.Acked > r.acked
		}
		r.mark(now, s, reached)
	}
	r.now.Missing = cut(f.Broken)
	if f.Whole && f.Acked > r.acked {
		return r.end(now)
	}
	return false
}

// mark notes when a stage was reached, and forgets it when that did not last.
func (r *Recorder) mark(now time.Duration, s model.RecoveryStage, reached bool) {
	at := slices.IndexFunc(r.now.Stages, func(m model.RecoveryMark) bool { return m.Name == string(s) })
	switch {
	case reached && at < 0:
		lasted, _ := r.Lasting(now)
		r.now.Stages = append(r.now.Stages, model.RecoveryMark{Name: string(s), MS: lasted.Milliseconds()})
	case !reached && at >= 0:
		r.now.Stages = slices.Delete(r.now.Stages, at, at+1)
	}
}

// Step notes what was done while a recovery lasts.
func (r *Recorder) Step(now time.Duration, name, detail string) {
	if r.now != nil {
		r.step(now, name, detail)
	}
}

func (r *Recorder) step(now time.Duration, name, detail string) {
	lasted, _ := r.Lasting(now)
	r.now.Steps = append(r.now.Steps, model.RecoveryMark{MS: lasted.Milliseconds(), Name: cut(name), Detail: cut(detail)})
	if len(r.now.Steps) > maxSteps {
		r.now.Steps = slices.Delete(r.now.Steps, maxSteps/2, maxSteps/2+1)
	}
}

// end closes the recovery that lasts.
func (r *Recorder) end(now time.Duration) bool {
	lasted, _ := r.Lasting(now)
	done := r.stamped(*r.now, now)
	done.State, done.TotalMS, done.Missing = model.RecoveryOver, lasted.Milliseconds(), ""
	r.now = nil
	if broken := r.until - time.Duration(done.BeganMS)*time.Millisecond; done.Cause == model.CauseBroken && len(done.Steps) == 0 && broken < Blip {
		return false
	}
	r.past = append(r.past, done)
	r.past = r.past[max(0, len(r.past)-Kept):]
	return true
}

// stamped gives a recovery what the clock now says of its beginning, and takes out
// what was there all the time.
func (r *Recorder) stamped(c model.Recovery, now time.Duration) model.Recovery {
	lasted, _ := r.Lasting(now)
	wall, quality := r.wall()
	c.Began, c.Clock = wall.Add(-lasted).UTC().Truncate(time.Millisecond), quality
	stages := []model.RecoveryMark{}
	for _, m := range c.Stages {
		if m.MS >= 0 {
			stages = append(stages, m)
		}
	}
	c.Stages, c.Steps = stages, slices.Clone(c.Steps)
	return c
}

// List returns all recoveries that are kept, oldest first, the one that lasts at
// the end.
func (r *Recorder) List(now time.Duration) []model.Recovery {
	list := slices.Clone(r.past)
	if r.now != nil {
		list = append(list, r.stamped(*r.now, now))
	}
	if list == nil {
		list = []model.Recovery{}
	}
	return list[max(0, len(list)-Kept):]
}

// cut bounds a text, which may be of strangers.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxText {
		return s
	}
	for i := maxText; ; i-- {
		if s[i]&0xc0 != 0x80 { // not within a character
			return s[:i]
		}
	}
}
