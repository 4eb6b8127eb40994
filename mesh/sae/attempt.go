package sae

import (
	"slices"
	"time"

	"halo.internal/model/dot11"
)

// maxCandidates is how many Commits of one address an exchange remembers.
const maxCandidates = 16

// attempt is an exchange: one own Commit, and those that came in answer or that
// it answers.
type attempt struct {
	own        values
	secrets    secrets
	active     bool         // this side asked for it
	said       bool         // the own Commit went out in an exchange before, which ended well
	unanswered *commitFrame // the last that waits for a Confirm because of that
	committed  time.Time    // when the own Commit went out last
	until      time.Time    // the values serve no exchange that begins later
	deadline   time.Time
	resend     time.Time // zero: no more
	wait       time.Duration
	token      []byte // that the peer asked for
	candidates []*candidate
	sync       int
	repeats    int   // by the timer
	doubts     int   // Confirms that did not verify
	hint       error // what a refusal, which proves nothing, said
}

// candidate is a Commit that came under the peer's address. Who knows the
// password will confirm it; its keys are good for nobody else.
type candidate struct {
	values  values
	keys    keys
	counter uint16 // own send-confirm
}

// confirmed returns the Commit that a Confirm is of; nil: none of them.
func (a *attempt) confirmed(f confirmFrame) *candidate {
	if a != nil {
		for _, c := range a.candidates {
			if verifies(c.keys.kck[:], f, &c.values, &a.own) {
				return c
			}
		}
	}
	return nil
}

// has tells whether a Commit came in this exchange.
func (a *attempt) has(v *values) bool {
	return slices.ContainsFunc(a.candidates, func(c *candidate) bool { return c.values == *v })
}

// serves tells whether a former exchange may be gone on with.
func (a *attempt) serves(now time.Time) bool { return a != nil && now.Before(a.until) }

// strangerRepeats is how often a stranger's Commit makes this side repeat its
// Confirm unasked.
const strangerRepeats = 3

func (a *attempt) schedule(now time.Time, t Timing) {
	a.deadline = now.Add(t.Attempt)
	a.wait = t.Resend
	a.resend = now.Add(a.wait)
}

// commitPause is how long a Commit waits for an own Commit in answer where one may be
// too many: wpa_supplicant makes values anew for each Commit that it hears while it waits
// for a Confirm, copies of the air's included. Its own Confirm comes sooner, and who has
// not heard a Commit repeats his own.
const commitPause = 100 * time.Millisecond

// begin makes an own Commit; an active exchange sends it.
//
// A Commit soon after an exchange that ended well may come of a copy of its own Commit.
// Then a Confirm under its values follows at once, and is waited for; without it, the
// peer lost what it had heard, and renew begins for it.
func (e *Engine) begin(now time.Time, p *peer, active bool) error {
	if p.former.serves(now) && !active {
		e.resume(now, p)
		return nil
	}
	p.forgetFormer()
	pwe, err := e.element(p)
	if err != nil {
		e.tidy(p)
		return err
	}
	own, s, err := commit(pwe, e.c.Rand)
	if err != nil {
		e.tidy(p)
		return err
	}
	p.attempt = &attempt{own: own, secrets: s, active: active, until: now.Add(e.c.Timing.Linger)}
	p.attempt.schedule(now, e.c.Timing)
	if active {
		e.sendCommit(now, p)
	}
	return nil
}

// drive makes the exchange under way an active one, or begins one.
func (e *Engine) drive(now time.Time, p *peer) error {
	if p.attempt != nil && p.attempt.said {
		e.endAttempt(p) // the peer would take its Commit for a copy
	}
	if p.attempt == nil {
		return e.begin(now, p, true)
	}
	if !p.attempt.active {
		p.attempt.active = true
		p.attempt.schedule(now, e.c.Timing)
	}
	return nil
}

func (e *Engine) endAttempt(p *peer) {
	if p.attempt == nil {
		return
	}
	p.attempt.wipe()
	p.attempt = nil
}

func (a *attempt) wipe() {
	a.secrets.wipe()
	for _, c := range a.candidates {
		c.keys.wipe()
	}
}

func (e *Engine) sendCommit(now time.Time, p *peer) {
	p.attempt.committed = now
	f := commitFrame{method: e.c.Method, values: p.attempt.own, token: p.attempt.token}
	if len(e.c.Identifier) > 0 {
		f.identifier = e.c.Identifier
	}
	e.send(p.mac, f.append())
}

func (e *Engine) sendConfirm(p *peer, c *candidate) {
	if c.counter < 0xfffe { // the last is for who has accepted
		c.counter++
	}
	e.send(p.mac, confirmFrame{c.counter, confirm(c.keys.kck[:], c.counter, &p.attempt.own, &c.values)}.append())
}

// reply tells whether a repeated frame is answered once more.
func (e *Engine) reply(a *attempt) bool {
	if a.sync >= e.c.Limits.Sync {
		return false
	}
	a.sync++
	return true
}

// addCandidate derives the keys of a Commit and answers it. The own Commit goes
// out with the first answer alone: wpa_supplicant, which makes values anew for
// each Commit that it hears while it waits for a Confirm, would answer it by
// another, and so on without end. Who has not heard it repeats its own at the
// Confirm, and gets it then.
func (e *Engine) addCandidate(now time.Time, p *peer, f *commitFrame) {
	a := p.attempt
	k, err := derive(&a.secrets, &a.own, &f.values, groupSalt(e.c.Own, p.mac, nil, f.rejected))
	if err != nil {
		e.stats.Malformed++
		return
	}
	if len(a.candidates) == maxCandidates {
		a.candidates[0].keys.wipe()
		a.candidates = slices.Delete(a.candidates, 0, 1)
	}
	c := &candidate{values: f.values, keys: k}
	a.candidates = append(a.candidates, c)
	if a.said {
		a.unanswered = f
		return
	}
	if !a.active && len(a.candidates) == 1 {
		e.sendCommit(now, p)
	}
	e.sendConfirm(p, c)
}

// resume goes on with the former exchange, as one that waits for a Confirm.
func (e *Engine) resume(now time.Time, p *peer) *attempt {
	a := p.former
	p.attempt, p.former = a, nil
	a.said = true
	a.schedule(now, e.c.Timing)
	a.resend = now.Add(commitPause)
	return a
}

// renew answers under new values the last Commit that waited in vain for a Confirm under
// former ones.
func (e *Engine) renew(now time.Time, p *peer) {
	f := p.attempt.unanswered
	e.endAttempt(p)
	if f == nil || e.begin(now, p, false) != nil {
		e.tidy(p)
		return
	}
	e.addCandidate(now, p, f)
}

// fail ends an exchange and plans the next, if the peer is wanted.
func (e *Engine) fail(now time.Time, p *peer) {
	a := p.attempt
	err := a.hint
	switch {
	case a.doubts >= enoughDoubts && a.active && !p.doubted:
		err = ErrUnverified
	case a.doubts >= enoughDoubts && a.active, a.doubts >= 2*enoughDoubts: // no second exchange of a stranger's is known as one
		err = ErrPassword
	case err == nil:
		err = ErrSilent
	}
	e.endAttempt(p)
	switch {
	case a.active:
		p.doubted = a.doubts >= enoughDoubts
		p.failures++
		wait := e.c.Timing.RetryMax
		if shift := p.failures - 1; shift < 16 {
			wait = min(wait, e.c.Timing.Retry<<shift)
		}
		p.retry = now.Add(wait)
		e.events = append(e.events, Event{Kind: Failed, Peer: p.mac, Active: true, Err: err, Failures: p.failures, Retry: wait})
	case err == ErrPassword && !p.known() && e.reports.take(now):
		// A stranger that only knocked is no news; one that tried a password is.
		// Who has a PMKSA knows the password: then it is forgery.
		e.events = append(e.events, Event{Kind: Failed, Peer: p.mac, Err: err, Failures: 1})
	}
	e.tidy(p)
}

// Next returns when Advance is due; zero: not before something else happens.
func (e *Engine) Next() time.Time {
	var next time.Time
	due := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, p := range e.peers {
		if a := p.attempt; a != nil {
			due(a.deadline)
			due(a.resend)
		}
		if p.former != nil {
			due(p.former.until)
		}
		due(p.retry)
		for _, sa := range p.sas {
			due(sa.linger)
			if !sa.held {
				due(sa.since.Add(e.c.Timing.Lifetime))
			}
		}
	}
	return next
}

// Advance does what is due.
func (e *Engine) Advance(now time.Time) {
	reached := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	for _, p := range e.sorted() {
		if a := p.attempt; a != nil {
			switch {
			case reached(a.deadline):
				e.fail(now, p)
			case reached(a.resend) && a.said:
				e.renew(now, p)
			case reached(a.resend):
				e.repeat(now, p)
			}
		}
		if p.former != nil && reached(p.former.until) {
			p.forgetFormer()
		}
		if reached(p.retry) {
			p.retry = time.Time{}
			if e.drive(now, p) != nil {
				p.retry = now.Add(e.c.Timing.RetryMax)
			}
		}
		for i := len(p.sas) - 1; i >= 0; i-- {
			sa := p.sas[i]
			if reached(sa.linger) {
				sa.linger = time.Time{}
				clear(sa.keys.kck[:])
			}
			if !sa.held && reached(sa.since.Add(e.c.Timing.Lifetime)) {
				e.expire(p, i)
			}
		}
		e.tidy(p)
	}
}

// repeat sends again what has had no answer.
func (e *Engine) repeat(now time.Time, p *peer) {
	a := p.attempt
	a.repeats++
	if !p.known() && a.repeats > strangerRepeats {
		a.resend = time.Time{}
		return
	}
	if len(a.candidates) == 0 || a.repeats%3 == 0 {
		// The candidates may all be forged, and the peer not know of our Commit.
		e.sendCommit(now, p)
	}
	const most = 4 // answers to one frame's worth of silence
	for _, c := range a.candidates[max(0, len(a.candidates)-most):] {
		e.sendConfirm(p, c)
	}
	a.wait = min(2*a.wait, e.c.Timing.ResendMax)
	a.resend = now.Add(a.wait)
}

// enoughDoubts is how many Confirms that do not verify speak of another
// password: one may be of an exchange before this one, delayed by the air. In two
// exchanges in a row, they do so for certain: either side may have begun anew in
// the midst of the first.
const enoughDoubts = 3

// hint notes why the exchange with a peer may fail.
func (e *Engine) hint(mac dot11.MAC, err error) {
	if p := e.peers[mac]; p != nil && p.attempt != nil {
		p.attempt.hint = err
	}
}
