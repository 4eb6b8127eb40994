// Package rejoin is how a member that was off during a change of the mesh's
// profile gets the document that it missed, from any member around it, also while
// the gateway is off: one frame asks, one answers. It is the protocol without
// sockets and clocks.
//
//	request   member's tag, its latest document, nonce, signature by its identity
//	answer    nonce, an excerpt of the later document (mesh/profile)
//
// Both go past the mesh: on Ethernet ports under an EtherType of their own, over the
// air as action frames of a kind for which the kernel needs no station. Nothing else
// does; whoever asks gets no nearer to bat0 by it. What is handed over is signed by
// the network, and its secrets are sealed for the one who asks, who has to be in
// the list of members and in the document: a node that was revoked is in neither.
// Tags are what a stranger learns of who asks.
//
// The nonce shows only that an answer is to a request, which all around have heard:
// also who was revoked, and has the documents of its time. So an answer counts as far
// as it is later than what the one who asked had, and than the answers before it.
//
// A request is small and its answer is not, and who has recorded one can send it again.
// So the nonce begins with a stamp that rises with each request of a member, over its
// starts too: of one that is no later than the last no more is known than that the
// member once said so. Such are answered ever more rarely, as are those without a stamp,
// of former releases, and all of them together seldom; the last one never again. To
// refuse them would lock out a member whose card has lost the count of its starts. Who
// asks anew, again and again, is answered ever more rarely too, though more often. A
// later document is news to all.
package rejoin

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"halo.internal/identity"
	"halo.internal/mesh/profile"
)

// Frames begin with the magic, a version and a kind.
const (
	magic   = "HALR"
	version = 1
	header  = len(magic) + 2

	kindRequest = 1
	kindAnswer  = 2

	tagSize   = 16
	nonceSize = 8
	stampSize = 6 // of the nonce; the rest tells that it has a stamp
	signed    = tagSize + 8 + 8 + nonceSize
	request   = header + signed + 64

	// MaxFrame is the most octets that a frame's payload has.
	MaxFrame = header + nonceSize + profile.MaxExcerpt
)

// context keeps the signature from being taken for one of something else.
const context = "halo rejoin 1"

// Limits of what others can have this member do.
const (
	lookEvery   = time.Second      // at who the members are
	answerEvery = 4 * time.Second  // to one member; doubles with each answer
	answerMost  = time.Minute      // up to that
	replayMost  = time.Hour        // or, where it may be a recording, to that
	replayEvery = 10 * time.Second // all that may be recordings, together
	replayBurst = 16               // which are answered at once, after quiet
	maxOpen     = 4                // own requests that may still be answered
	openFor     = 30 * time.Second // that a request may be
	maxAnswers  = 16               // to one request that are looked at, and as many each second: each costs a signature

	// Signatures of requests that are verified, each at a third of a millisecond on a small
	// board; see attention.
	memberPerSecond  = 50 // in one member's name
	cleanPerSecond   = 50
	suspectPerSecond = 100
	suspectFor       = time.Minute
)

// Tag names a member to who knows its key.
type Tag [tagSize]byte

// TagOf returns a member's tag.
func TagOf(key identity.PublicKey) Tag {
	h := sha256.Sum256(append([]byte("halo rejoin member 1"), key[:]...))
	return Tag(h[:tagSize])
}

// Errors of Handle.
var (
	ErrForm    = errors.New("not a frame of this protocol")
	ErrRate    = errors.New("too many requests")
	ErrReplay  = errors.New("request that was answered before")
	ErrMember  = errors.New("request of somebody who is no member")
	ErrNothing = errors.New("there is no later document for it")
	ErrLater   = errors.New("request of somebody who says to have a later document") // a claim: it is not verified
	ErrStale   = errors.New("answer to no open request")
	ErrOld     = errors.New("answer with a document that is no later")
	ErrOther   = errors.New("answer with a document for another member")
)

// Config says who asks and what can be handed on.
type Config struct {
	Key     identity.Key
	Network identity.PublicKey
	// Members returns the members of the network, also itself.
	Members func() []identity.PublicKey
	// Document returns the document that this member has for the one who asks, if it is
	// whole.
	Document func(asker identity.PublicKey) (profile.Document, bool)
	// Boot counts this device's starts, and Since the milliseconds since the last: what
	// orders its requests.
	Boot  uint64
	Since func() uint64
}

// Engine asks and answers. It is not safe for concurrent use.
type Engine struct {
	c         Config
	attention *attention
	askers    map[Tag]asker // members, and no more than there are
	replays   time.Time     // by when replayBurst of them may be answered again
	stamped   uint64        // the last own request
	open      []open
}

// asker is a member that was answered.
type asker struct {
	stamp         uint64 // the highest of its requests
	epoch, serial uint64 // of the document that it was answered with
	at            time.Time
	fresh, replay pace // of answers to requests that are new, and that may be recordings
}

// pace is how often something is done. The zero value is at rest.
type pace struct {
	at   time.Time     // last
	wait time.Duration // since then
}

// due tells whether it may be done again.
func (p pace) due(now time.Time) bool { return now.Sub(p.at) >= p.wait }

// done notes that it was: each time it is to be twice as long until the next, up to most.
func (p *pace) done(now time.Time, most time.Duration) {
	if now.Sub(p.at) >= 2*most {
		p.wait = 0
	}
	p.at, p.wait = now, min(max(2*p.wait, answerEvery), most)
}

// open is an own request that may still be answered.
type open struct {
	nonce  [nonceSize]byte
	at     time.Time
	latest profile.Document // that an answer has to be later than
	looks  *rate.Limiter    // at answers
}

// New returns an engine.
func New(c Config) *Engine {
	return &Engine{c: c, attention: newAttention(c.Members), askers: map[Tag]asker{}}
}

// stamp counts tenths of a second of a start in its low bits, enough for ten months.
const (
	stampTick = 100 // ms
	stampBits = 28
)

// stamp returns the next own one.
func (e *Engine) stamp() uint64 {
	at := min(e.c.Since()/stampTick, 1<<stampBits-1)
	e.stamped = max(e.stamped+1, e.c.Boot<<stampBits|at) & (1<<(8*stampSize) - 1)
	return e.stamped
}

// nonceOf makes a nonce of a stamp.
func nonceOf(tag Tag, stamp uint64) (n [nonceSize]byte) {
	binary.BigEndian.PutUint64(n[:], stamp<<(8*(nonceSize-stampSize)))
	h := sha256.Sum256(slices.Concat([]byte("halo rejoin stamp 1"), tag[:], n[:stampSize]))
	copy(n[stampSize:], h[:])
	return n
}

// stampOf returns the stamp of a nonce, or 0: it has none.
func stampOf(tag Tag, n [nonceSize]byte) uint64 {
	stamp := binary.BigEndian.Uint64(n[:]) >> (8 * (nonceSize - stampSize))
	if nonceOf(tag, stamp) != n {
		return 0
	}
	return stamp
}

// Request returns a frame that asks for a document after latest.
func (e *Engine) Request(now time.Time, latest profile.Document) []byte {
	tag := TagOf(e.c.Key.Public())
	nonce := nonceOf(tag, e.stamp())
	if len(e.open) == maxOpen {
		e.open = e.open[1:]
	}
	e.open = append(e.open, open{nonce: nonce, at: now, latest: latest, looks: rate.NewLimiter(maxAnswers, maxAnswers)})
	b := build(kindRequest, tag[:])
	b = binary.BigEndian.AppendUint64(b, latest.Epoch)
	b = binary.BigEndian.AppendUint64(b, latest.Serial)
	b = append(b, nonce[:]...)
	return append(b, e.c.Key.Sign(context, e.bound(b[header:]))...)
}

// bound ties what is signed to the network.
func (e *Engine) bound(b []byte) []byte { return slices.Concat(e.c.Network[:], b) }

func build(kind byte, body []byte) []byte {
	return slices.Concat([]byte(magic), []byte{version, kind}, body)
}

// Handle takes a frame: of a request it returns the answer, of an answer the
// document.
func (e *Engine) Handle(now time.Time, b []byte) (answer []byte, d *profile.Document, err error) {
	if len(b) < header || len(b) > MaxFrame || string(b[:len(magic)]) != magic || b[len(magic)] != version {
		return nil, nil, ErrForm
	}
	switch b[len(magic)+1] {
	case kindRequest:
		answer, err := e.asked(now, b)
		return answer, nil, err
	case kindAnswer:
		d, err := e.told(now, b[header:])
		return nil, d, err
	}
	return nil, nil, ErrForm
}

// asked answers a request. What costs little is checked first.
func (e *Engine) asked(now time.Time, b []byte) ([]byte, error) {
	if len(b) != request {
		return nil, fmt.Errorf("%w: expected a request of %d octets, got %d", ErrForm, request, len(b))
	}
	body, signature := b[header:header+signed], b[header+signed:]
	tag := Tag(body[:tagSize])
	from := e.attention.find(now, tag)
	if from == nil || from.key == e.c.Key.Public() {
		return nil, ErrMember
	}
	key := from.key
	latest := profile.Document{Epoch: binary.BigEndian.Uint64(body[tagSize:]), Serial: binary.BigEndian.Uint64(body[tagSize+8:])}
	own, ok := e.c.Document(key)
	if latest.After(own) {
		return nil, ErrLater
	}
	if !ok || !own.After(latest) || !own.Has(key) {
		return nil, ErrNothing
	}
	a := e.askers[tag]
	if a.epoch != own.Epoch || a.serial != own.Serial {
		a = asker{stamp: a.stamp, epoch: own.Epoch, serial: own.Serial}
	}
	stamp := stampOf(tag, [nonceSize]byte(body[signed-nonceSize:]))
	fresh := stamp > a.stamp
	switch {
	case stamp == a.stamp && stamp != 0:
		return nil, ErrReplay
	case now.Sub(a.at) < answerEvery, fresh && !a.fresh.due(now):
		return nil, ErrRate
	case !fresh && (!a.replay.due(now) || e.replays.Sub(now) > (replayBurst-1)*replayEvery):
		return nil, ErrReplay
	}
	if !e.attention.take(now, from) {
		return nil, ErrRate
	}
	if !key.Verify(context, e.bound(body), signature) {
		from.forged = now
		return nil, fmt.Errorf("%w: %w", ErrMember, identity.ErrSignature)
	}
	a.at = now
	if fresh {
		a.stamp = stamp
		a.fresh.done(now, answerMost)
	} else {
		a.replay.done(now, replayMost)
		if e.replays.Before(now) {
			e.replays = now
		}
		e.replays = e.replays.Add(replayEvery)
	}
	e.askers[tag] = a
	x, err := own.Excerpt(key)
	if err != nil {
		return nil, err
	}
	return build(kindAnswer, append(bytes.Clone(body[signed-nonceSize:]), x.Marshal()...)), nil
}

// told takes an answer to an open request. Several members may answer; the request
// stays open for a later document than theirs.
func (e *Engine) told(now time.Time, body []byte) (*profile.Document, error) {
	if len(body) < nonceSize {
		return nil, ErrForm
	}
	i := slices.IndexFunc(e.open, func(o open) bool { return o.nonce == [nonceSize]byte(body) && now.Sub(o.at) < openFor })
	if i < 0 {
		return nil, ErrStale
	}
	o := &e.open[i]
	if !o.looks.AllowN(now, 1) {
		return nil, ErrRate
	}
	d, err := profile.Parse(e.c.Network, body[nonceSize:])
	if err != nil {
		return nil, err
	}
	if !d.Has(e.c.Key.Public()) {
		return nil, ErrOther
	}
	if !d.After(o.latest) {
		return nil, fmt.Errorf("%w: expected one after %d of epoch %d, got %d of epoch %d", ErrOld, o.latest.Serial, o.latest.Epoch, d.Serial, d.Epoch)
	}
	o.latest = d
	return &d, nil
}
