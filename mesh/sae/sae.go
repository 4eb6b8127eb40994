// Package sae is the Simultaneous Authentication of Equals of IEEE Std
// 802.11-2020, 12.4, as mesh stations use it: two that know the same password
// agree on a pairwise master key, and nobody who listens or meddles can try
// more than one password for each exchange. It is a state machine without
// sockets, clocks or goroutines: frames and the time go in, frames and events
// come out.
//
//	Commit   scalar, element: "I have committed to one password"
//	Confirm  counter, MAC: "the password was yours"
//
// Where it goes beyond the standard, it does so for links that stay up and for
// peers that come back:
//
//   - A Commit from a peer that is accepted starts a second exchange beside the
//     key that there is, which stays until the peer's Confirm has verified.
//   - An exchange holds the keys of a few Commits of the same address and lets
//     the Confirm decide, so that a forged Commit does not displace a real one.
//   - A stranger's Commit makes this side send a handful of frames, not more,
//     and past a few strangers only after a token has come back.
//   - Refusals are not authenticated and end nothing: they only tell the reason
//     that is reported when the exchange has run out of time.
//
// Secrets are overwritten once they are not needed. What the arithmetic of
// filippo.io/bigmod and filippo.io/nistec leaves on stack and heap is beyond
// reach.
package sae

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/nistec"

	"halo.internal/model/dot11"
)

// Timing holds the intervals; a zero field stands for that of Wifi.
type Timing struct {
	Resend    time.Duration // until a frame is repeated; doubles with each
	ResendMax time.Duration // most between two copies
	Attempt   time.Duration // how long an exchange may take
	Retry     time.Duration // back-off after a failure; doubles with each
	RetryMax  time.Duration // most between two exchanges
	Linger    time.Duration // how long a repeated Confirm is answered after acceptance
	Lifetime  time.Duration // of a PMKSA
}

// Limits bound what others may cause; a zero field stands for its default.
type Limits struct {
	Tokens  int     // exchanges that strangers began before a token is asked for
	Pending int     // exchanges that strangers began, at most
	Peers   int     // stations that are wanted or have a PMKSA, at most
	Sync    int     // replies to repeated frames in one exchange (dot11RSNASAESync)
	Rate    float64 // exchanges with strangers computed per second; refusals sent are ten times as many at most
}

// Wifi and HaLow are the intervals for either kind of radio. A frame takes 10 ms of a
// HaLow channel of 1 MHz, and waits for those of all others: who repeats it before the
// answer can come fills the channel with repetitions.
var (
	Wifi = Timing{
		Resend: 250 * time.Millisecond, ResendMax: time.Second, Attempt: 5 * time.Second,
		Retry: time.Second, RetryMax: 10 * time.Second,
		Linger: 15 * time.Second, Lifetime: 12 * time.Hour, // dot11RSNAConfigPMKLifetime
	}
	HaLow = Timing{
		Resend: 1500 * time.Millisecond, ResendMax: 6 * time.Second, Attempt: 20 * time.Second,
		Retry: 4 * time.Second, RetryMax: time.Minute,
		Linger: 30 * time.Second, Lifetime: 12 * time.Hour,
	}
)

func (t Timing) withDefaults() Timing {
	for _, d := range []struct{ field, value *time.Duration }{
		{&t.Resend, &Wifi.Resend},
		{&t.ResendMax, &Wifi.ResendMax},
		{&t.Attempt, &Wifi.Attempt},
		{&t.Retry, &Wifi.Retry},
		{&t.RetryMax, &Wifi.RetryMax},
		{&t.Linger, &Wifi.Linger},
		{&t.Lifetime, &Wifi.Lifetime},
	} {
		if *d.field == 0 {
			*d.field = *d.value
		}
	}
	return t
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&l.Tokens, 5}, // dot11RSNASAEAntiCloggingThreshold
		{&l.Pending, 32},
		{&l.Peers, 64},
		{&l.Sync, 10},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if l.Rate == 0 {
		l.Rate = 20
	}
	return l
}

// Config says who authenticates with what.
type Config struct {
	Own        dot11.MAC
	MeshID     []byte // 1 to 32 octets
	Password   []byte // of all members, not empty
	Identifier []byte // of the password; hash to element only; empty: none
	Method     Method
	Timing     Timing
	Limits     Limits
	Rand       io.Reader // nil: crypto/rand
}

// EventKind tells what happened with a peer.
type EventKind int

// Kinds of events.
const (
	Accepted EventKind = iota + 1 // there is a PMKSA; see Engine.PMK
	Failed                        // the exchange came to nothing
	Expired                       // the PMKSA is no longer held
)

// Event is a transition of one peer. It carries no secret.
type Event struct {
	Kind EventKind
	Peer dot11.MAC

	PMKID  PMKID // Accepted, Expired
	Active bool  // this side had asked for the exchange by Start
	Again  bool  // Accepted while another PMKSA was there: the peer began anew

	Err      error         // Failed: the reason
	Failures int           // Failed: how many in a row
	Retry    time.Duration // Failed: until the next exchange; 0: none is planned
}

// Reasons of failures.
var (
	ErrSilent     = errors.New("the peer did not answer")
	ErrUnverified = errors.New("the peer's Confirms do not verify: of exchanges that crossed, or of another password")
	ErrPassword   = errors.New("the peer has another password: its Confirm does not verify")
	ErrMethod     = errors.New("the peer derives the password element by the other method, which is refused")
	ErrGroup      = errors.New("the peer refuses group 19")
	ErrIdentifier = errors.New("the peer knows no such password identifier")
	ErrRefused    = errors.New("the peer refused, as with another password")
	ErrFull       = errors.New("enough stations are wanted or authenticated already")
)

// Stats counts what was turned away, by reason.
type Stats struct {
	Malformed    uint64 // no frames of SAE, or values out of range
	Reflected    uint64 // own values came back
	Replayed     uint64 // values or counters that had been there
	Unverified   uint64 // Confirms under no key
	OtherMethod  uint64 // Commits of the method that is refused
	OtherGroup   uint64 // Commits over another group
	TokensAsked  uint64 // Commits of strangers sent back for a token
	OverCapacity uint64 // Commits dropped for want of budget
}

// Engine authenticates the stations that one interface hears. It is not safe
// for concurrent use: the goroutine that owns the interface calls it.
type Engine struct {
	c        Config
	pt       *nistec.P256Point // hash to element only
	peers    map[dot11.MAC]*peer
	tokens   tokens
	strange  budget // computations for strangers
	familiar budget // and for known peers
	refusals budget // frames that refuse
	reports  budget // events about strangers
	frames   []dot11.Frame
	events   []Event
	stats    Stats
}

// New returns an engine with nobody known.
func New(c Config, now time.Time) (*Engine, error) {
	switch {
	case len(c.MeshID) == 0 || len(c.MeshID) > 32:
		return nil, fmt.Errorf("mesh ID: expected 1 to 32 octets, got %d", len(c.MeshID))
	case len(c.Password) == 0:
		return nil, errors.New("password: empty")
	case len(c.Identifier) > maxIdentifier:
		return nil, fmt.Errorf("password identifier: expected at most %d octets, got %d", maxIdentifier, len(c.Identifier))
	case c.Method == HuntingAndPecking && len(c.Identifier) > 0:
		return nil, errors.New("password identifier: needs hash to element")
	case c.Own.Group():
		return nil, fmt.Errorf("own address: %s is a group's", c.Own)
	}
	c.Password = bytes.Clone(c.Password)
	c.Timing, c.Limits = c.Timing.withDefaults(), c.Limits.withDefaults()
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	e := &Engine{
		c:        c,
		peers:    map[dot11.MAC]*peer{},
		tokens:   tokens{random: c.Rand},
		strange:  newBudget(c.Limits.Rate, c.Limits.Rate, now),
		familiar: newBudget(allRate, allRate, now),
		refusals: newBudget(10*c.Limits.Rate, 10*c.Limits.Rate, now),
		reports:  newBudget(0.1, 3, now),
	}
	if c.Method == HashToElement {
		pt, err := passwordElement(c.MeshID, c.Password, c.Identifier)
		if err != nil {
			return nil, err
		}
		e.pt = pt
	}
	return e, nil
}

// Take returns what is to be sent and what happened since the last call, each
// in order.
func (e *Engine) Take() ([]dot11.Frame, []Event) {
	frames, events := e.frames, e.events
	e.frames, e.events = nil, nil
	return frames, events
}

// Stats returns the counters since New.
func (e *Engine) Stats() Stats { return e.stats }

// Close wipes every secret. The engine is of no use afterwards.
func (e *Engine) Close() {
	for _, p := range e.peers {
		e.drop(p)
	}
	clear(e.c.Password)
	if e.pt != nil {
		e.pt.Set(nistec.NewP256Point())
	}
	e.tokens = tokens{random: e.c.Rand}
}

func (e *Engine) send(to dot11.MAC, body []byte) {
	b := make([]byte, 0, dot11.HeaderSize+len(body))
	b = dot11.AppendManagement(b, dot11.Header{Subtype: dot11.Authentication, To: to, From: e.c.Own})
	e.frames = append(e.frames, dot11.Frame{To: to, Bytes: append(b, body...)})
}
