package rejoin

import (
	"bytes"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/profile"
	"halo.internal/model/bundle"
)

var now = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

// often is between two frames of who sends recordings.
const often = 100 * time.Millisecond

var mesh = bundle.Mesh{SSID: "M", PSK: "the new secret", Routing: "BATMAN_IV", Channel: 6}

// network is a gateway, two members and one that was revoked.
type network struct {
	key, a, b, revoked identity.Key
	doc                profile.Document
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	n := &network{key: identity.New(), a: identity.New(), b: identity.New(), revoked: identity.New()}
	var err error
	n.doc, err = profile.Sign(n.key, profile.Draft{
		Epoch: 1, Serial: 2, Issued: now, Mesh: mesh,
		Members: []identity.PublicKey{n.key.Public(), n.a.Public(), n.b.Public()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *network) engine(k identity.Key, doc profile.Document) *Engine {
	return New(Config{
		Key: k, Network: n.key.Public(),
		Members: func() []identity.PublicKey {
			return []identity.PublicKey{n.key.Public(), n.a.Public(), n.b.Public()}
		},
		Document: func(identity.PublicKey) (profile.Document, bool) { return doc, doc.Whole() },
		Boot:     1, Since: func() uint64 { return 0 },
	})
}

// unstamped is a request as former releases make it: its nonce is drawn.
func (n *network) unstamped(k identity.Key, latest profile.Document) []byte {
	e := n.engine(k, profile.Document{})
	b := e.Request(now, latest)
	body := b[header : header+signed]
	rand.Read(body[signed-nonceSize:])
	return append(b[:header+signed], k.Sign(context, e.bound(body))...)
}

// later is the document that comes after n.doc.
func (n *network) later(t testing.TB) profile.Document {
	t.Helper()
	d, err := profile.Sign(n.key, profile.Draft{
		Epoch: 1, Serial: n.doc.Serial + 1, Issued: now, Mesh: mesh,
		Members: []identity.PublicKey{n.key.Public(), n.a.Public(), n.b.Public()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAMemberGetsWhatItMissed(t *testing.T) {
	n := newNetwork(t)
	old, current := n.engine(n.a, profile.Document{}), n.engine(n.b, n.doc)
	ask := old.Request(now, profile.Document{Epoch: 1, Serial: 1})
	answer, _, err := current.Handle(now, ask)
	if err != nil {
		t.Fatal(err)
	}
	if len(ask) > 128 || len(answer) > 600 {
		t.Errorf("the request has %d octets, the answer %d", len(ask), len(answer))
	}
	_, d, err := old.Handle(now, answer)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := d.Open(n.a); err != nil || o.Mesh.PSK != "the new secret" || o.Mesh.Channel != 6 {
		t.Errorf("got %v, %v", o, err)
	}
	if _, err := d.Open(n.revoked); !errors.Is(err, profile.ErrNoMember) {
		t.Errorf("another opened it: %v", err)
	}
}

func TestWhoGetsNothing(t *testing.T) {
	n := newNetwork(t)
	x, err := n.doc.Excerpt(n.b.Public())
	if err != nil {
		t.Fatal(err)
	}
	before := profile.Document{Epoch: 1, Serial: 1}
	good := n.engine(n.a, profile.Document{}).Request(now, before)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	other := newNetwork(t)
	other.a = n.a // the same member, in another network
	for name, tc := range map[string]struct {
		to   *Engine
		ask  []byte
		want error
	}{
		"a revoked node":                  {n.engine(n.b, n.doc), n.engine(n.revoked, profile.Document{}).Request(now, before), ErrMember},
		"a stranger in a member's name":   {n.engine(n.b, n.doc), forged, identity.ErrSignature},
		"who has it":                      {n.engine(n.b, n.doc), n.engine(n.a, profile.Document{}).Request(now, n.doc), ErrNothing},
		"of one who has an earlier one":   {n.engine(n.b, before), n.engine(n.a, profile.Document{}).Request(now, n.doc), ErrLater},
		"of one with an excerpt":          {n.engine(n.b, x), good, ErrNothing},
		"of one without any":              {n.engine(n.b, profile.Document{}), good, ErrLater},
		"its own words, come back":        {n.engine(n.a, n.doc), good, ErrMember},
		"a request for another network":   {n.engine(n.b, n.doc), other.engine(n.a, profile.Document{}).Request(now, before), identity.ErrSignature},
		"an answer that nobody asked for": {n.engine(n.a, profile.Document{}), build(kindAnswer, make([]byte, 600)), ErrStale},
		"no frame":                        {n.engine(n.b, n.doc), []byte("HALO"), ErrForm},
		"a kind there is not":             {n.engine(n.b, n.doc), build(3, nil), ErrForm},
		"a short request":                 {n.engine(n.b, n.doc), good[:len(good)-1], ErrForm},
		"too long":                        {n.engine(n.b, n.doc), append(good, make([]byte, MaxFrame)...), ErrForm},
	} {
		if answer, d, err := tc.to.Handle(now, tc.ask); !errors.Is(err, tc.want) || answer != nil || d != nil {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

// TestWhichAnswersCount: all around hear what is asked, and may answer: with what they
// kept, with what was for others, late, and again and again.
func TestWhichAnswersCount(t *testing.T) {
	n := newNetwork(t)
	mesh := mesh
	mesh.PSK = "a secret of then"
	excerpt := func(serial uint64, of identity.Key) []byte {
		d, err := profile.Sign(n.key, profile.Draft{
			Epoch: 1, Serial: serial, Issued: now, Mesh: mesh,
			Members: []identity.PublicKey{n.key.Public(), n.a.Public(), n.b.Public()},
		})
		if err == nil {
			d, err = d.Excerpt(of.Public())
		}
		if err != nil {
			t.Fatal(err)
		}
		return d.Marshal()
	}
	type answer struct {
		excerpt []byte
		after   time.Duration
		want    error
	}
	first, last := excerpt(5, n.a), excerpt(7, n.a)
	for name, answers := range map[string][]answer{
		"one":                            {{first, 0, nil}},
		"the older one last":             {{last, 0, nil}, {first, time.Second, ErrOld}},
		"the older one first":            {{first, 0, nil}, {last, time.Second, nil}},
		"the same again":                 {{first, 0, nil}, {first, time.Second, ErrOld}},
		"as old as what is at hand":      {{excerpt(3, n.a), 0, ErrOld}, {first, time.Second, nil}},
		"older than that, of a revoked":  {{excerpt(2, n.a), 0, ErrOld}, {first, time.Second, nil}},
		"another's":                      {{excerpt(5, n.b), 0, ErrOther}, {first, time.Second, nil}},
		"late":                           {{first, openFor, ErrStale}},
		"one that nobody signed, and on": {{first[:len(first)-1], 0, profile.ErrForm}, {first, 0, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			e := n.engine(n.a, profile.Document{})
			ask := e.Request(now, profile.Document{Epoch: 1, Serial: 3})
			nonce := ask[header+signed-nonceSize : header+signed]
			for i, a := range answers {
				d, err := answered(e, now.Add(a.after), nonce, a.excerpt)
				if !errors.Is(err, a.want) || (d == nil) != (a.want != nil) {
					t.Errorf("answer %d: got %v, want %v", i, err, a.want)
				}
			}
			for range maxAnswers {
				_, _ = answered(e, now, nonce, first) // each costs a signature
			}
			if _, err := answered(e, now, nonce, last); !errors.Is(err, ErrRate) {
				t.Errorf("after %d answers: got %v, want %v", maxAnswers, err, ErrRate)
			}
		})
	}
}

func answered(e *Engine, at time.Time, nonce, excerpt []byte) (*profile.Document, error) {
	_, d, err := e.Handle(at, build(kindAnswer, append(bytes.Clone(nonce), excerpt...)))
	return d, err
}

// TestAFloodCostsLittle: what a member says once is answered once.
func TestAFloodCostsLittle(t *testing.T) {
	n := newNetwork(t)
	e := n.engine(n.b, n.doc)
	ask := n.engine(n.a, profile.Document{}).Request(now, profile.Document{})
	answers := 0
	for i := range 1000 {
		if answer, _, _ := e.Handle(now.Add(time.Duration(i)*10*time.Millisecond), ask); answer != nil {
			answers++
		}
	}
	if answers != 1 {
		t.Errorf("got %d answers, want one", answers)
	}
}

// TestAForgedFloodSilencesNobodyElse: requests that differ from genuine ones in nothing but
// the signature, in the names of some members, take from these alone, and also these get
// through as one of so many.
func TestAForgedFloodSilencesNobodyElse(t *testing.T) {
	const members = 250
	n := newNetwork(t)
	keys := make([]identity.Key, members)
	all := []identity.PublicKey{n.key.Public(), n.b.Public()}
	for i := range keys {
		keys[i] = identity.New()
		all = append(all, keys[i].Public())
	}
	doc, err := profile.Sign(n.key, profile.Draft{Epoch: 1, Serial: 2, Issued: now, Mesh: mesh, Members: all})
	if err != nil {
		t.Fatal(err)
	}
	latest := profile.Document{Epoch: 1, Serial: 1}
	for name, tc := range map[string]struct {
		forged int           // members in whose names
		every  time.Duration // between two forged frames
		victim int           // requests, ten seconds apart, until one in whose name it is done is answered
		costs  int           // the most signatures in a second
	}{
		"in one's name, slowly":   {1, 50 * time.Millisecond, 1, 25},
		"in one's name":           {1, time.Millisecond, 90, 55},
		"in five members' names":  {5, time.Millisecond, 60, 155},
		"in all members' names":   {members, time.Millisecond, 60, 155},
		"in all members', slowly": {members, 10 * time.Millisecond, 1, 105},
		"in no member's name":     {0, time.Millisecond, 1, 5},
	} {
		t.Run(name, func(t *testing.T) {
			e := n.engine(n.b, doc)
			e.attention.roll = func() []identity.PublicKey { return all }
			draw := mathrand.New(mathrand.NewPCG(1, 2))
			at, sent, stamp, costs := now, 0, uint64(1)<<40, 0
			flood := func(d time.Duration) { // what passes before a signature is told by the error
				for until := at.Add(d); at.Before(until); at = at.Add(tc.every) {
					key := identity.PublicKey{1}
					if tc.forged > 0 {
						key = keys[sent%tc.forged].Public()
					}
					sent, stamp = sent+1, stamp+1
					tag, nonce := TagOf(key), [nonceSize]byte{}
					nonce = nonceOf(tag, stamp)
					b := slices.Concat(build(kindRequest, tag[:]), make([]byte, 16), nonce[:], make([]byte, 64))
					if answer, _, err := e.Handle(at, b); answer != nil {
						t.Fatal("what is forged is answered")
					} else if errors.Is(err, identity.ErrSignature) {
						costs++
					}
				}
			}
			flood(3 * time.Second)
			costs = 0
			flood(2 * time.Second)
			if costs > 2*tc.costs {
				t.Errorf("it costs %d signatures in two seconds, want at most %d", costs, 2*tc.costs)
			}
			asks := func(k identity.Key, most int) (tries int) {
				asker := n.engine(k, profile.Document{})
				for tries = 1; tries <= most; tries++ {
					flood(10*time.Second + time.Duration(draw.Int64N(int64(time.Second))))
					at = at.Add(time.Duration(draw.Int64N(int64(tc.every)))) // not always right after the last that was looked at
					if answer, _, _ := e.Handle(at, asker.Request(at, latest)); answer != nil {
						return tries
					}
				}
				return tries
			}
			if tc.forged < members {
				if tries := asks(keys[members-1], 1); tries > 1 {
					t.Error("somebody else is not answered at once")
				}
			}
			if tries := asks(keys[0], tc.victim); tries > tc.victim {
				t.Errorf("the member itself is not answered after %d requests", tries-1)
			} else {
				t.Logf("%d forged frames a second: the member itself is answered at its request no. %d", time.Second/tc.every, tries)
			}
		})
	}
}

// TestAFloodOfAnswers in which somebody who hears the nonce is faster than who has the
// document: the request stays open.
func TestAFloodOfAnswers(t *testing.T) {
	n := newNetwork(t)
	e, other := n.engine(n.a, profile.Document{}), n.engine(n.b, n.doc)
	ask := e.Request(now, profile.Document{Epoch: 1, Serial: 1})
	answer, _, err := other.Handle(now, ask)
	if err != nil {
		t.Fatal(err)
	}
	nonce := ask[header+signed-nonceSize : header+signed]
	for range 100 {
		if _, err := answered(e, now, nonce, make([]byte, 100)); err == nil {
			t.Fatal("junk is an answer")
		}
	}
	if _, d, err := e.Handle(now.Add(time.Second), answer); d == nil {
		t.Errorf("a second later: %v", err)
	}
}

// TestRecordingsAreAnsweredSeldom plays a day in which somebody sends what he has
// recorded of members, as often as it is looked at, and what then is left for them.
func TestRecordingsAreAnsweredSeldom(t *testing.T) {
	const day = 24 * time.Hour
	old := profile.Document{Epoch: 1, Serial: 1}
	for name, tc := range map[string]struct {
		recorded func(n *network) [][]byte
		most     int
	}{
		"one": {func(n *network) [][]byte { return [][]byte{n.engine(n.a, old).Request(now, old)} }, 1},
		"many": {func(n *network) (list [][]byte) {
			e := n.engine(n.a, old)
			for range 50 {
				list = append(list, e.Request(now, old))
			}
			return list
		}, 40},
		"many of a former release": {func(n *network) (list [][]byte) {
			for range 50 {
				list = append(list, n.unstamped(n.a, old))
			}
			return list
		}, 40},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			e := n.engine(n.b, n.doc)
			recorded := tc.recorded(n)
			// The last is heard first: nothing that was said before it is new.
			if answer, _, err := e.Handle(now, recorded[len(recorded)-1]); answer == nil {
				t.Fatal(err)
			}
			answers := 1
			for at := often; at < day; at += time.Second {
				if answer, _, _ := e.Handle(now.Add(at), recorded[int(at/time.Second)%len(recorded)]); answer != nil {
					answers++
				}
			}
			if answers > tc.most {
				t.Errorf("%d answers in a day, want at most %d", answers, tc.most)
			}
			asker := n.engine(n.a, old)
			asker.c.Boot = 2
			if answer, _, err := e.Handle(now.Add(day+answerEvery), asker.Request(now, old)); answer == nil {
				t.Errorf("the member itself is not answered: %v", err)
			}
		})
	}
}

// TestAllRecordingsTogether are answered seldom too, whosever they are.
func TestAllRecordingsTogether(t *testing.T) {
	const members = 200
	n := newNetwork(t)
	all := []identity.PublicKey{n.key.Public(), n.b.Public()}
	var recorded [][]byte
	for range members {
		k := identity.New()
		all = append(all, k.Public())
		recorded = append(recorded, n.unstamped(k, profile.Document{}))
	}
	doc, err := profile.Sign(n.key, profile.Draft{Epoch: 1, Serial: 2, Issued: now, Mesh: mesh, Members: all})
	if err != nil {
		t.Fatal(err)
	}
	e := n.engine(n.b, doc)
	e.attention.roll = func() []identity.PublicKey { return all }
	answers := 0
	for at := time.Duration(0); at < time.Hour; at += often {
		if answer, _, _ := e.Handle(now.Add(at), recorded[int(at/often)%members]); answer != nil {
			answers++
		}
	}
	if most := replayBurst + int(time.Hour/replayEvery); answers > most {
		t.Errorf("%d answers in an hour, want at most %d", answers, most)
	}
}

// TestWhoAsksAgain: an answer may be lost, so that who asks is answered again, and ever
// more rarely: a member may want nothing but the answers. A later document begins anew.
func TestWhoAsksAgain(t *testing.T) {
	n := newNetwork(t)
	doc := n.doc
	asker, e := n.engine(n.a, profile.Document{}), n.engine(n.b, doc)
	e.c.Document = func(identity.PublicKey) (profile.Document, bool) { return doc, true }
	play := func(from, to time.Duration) (answered []time.Duration) {
		for at := from; at < to; at += time.Second {
			if answer, _, _ := e.Handle(now.Add(at), asker.Request(now.Add(at), profile.Document{Epoch: 1, Serial: 1})); answer != nil {
				answered = append(answered, at)
			}
		}
		return answered
	}
	at := play(0, time.Hour)
	if want := []time.Duration{0, 4 * time.Second, 12 * time.Second, 28 * time.Second, time.Minute, 2 * time.Minute}; len(at) < 60 || len(at) > 64 || !slices.Equal(at[:6], want) {
		t.Errorf("%d answers in an hour, the first at %v; want about 60, from %v on", len(at), at[:min(len(at), 6)], want)
	}
	doc = n.later(t)
	if at = play(time.Hour, time.Hour+10*time.Second); len(at) != 2 {
		t.Errorf("of a later document: answers at %v, want two in ten seconds", at)
	}
	if at = play(10*time.Hour, 10*time.Hour+10*time.Second); len(at) != 2 {
		t.Errorf("after a while: answers at %v, want two in ten seconds", at)
	}
}

func TestStamps(t *testing.T) {
	tag, other := Tag{1}, Tag{2}
	for _, stamp := range []uint64{1, 1 << 28, 1<<48 - 1} {
		n := nonceOf(tag, stamp)
		if got := stampOf(tag, n); got != stamp {
			t.Errorf("stamp %d comes back as %d", stamp, got)
		}
		if stampOf(other, n) != 0 {
			t.Errorf("stamp %d of one member is good for another", stamp)
		}
		n[nonceSize-1]++
		if stampOf(tag, n) != 0 {
			t.Errorf("stamp %d has no check", stamp)
		}
	}
	since := uint64(0)
	e := New(Config{Boot: 3, Since: func() uint64 { return since }})
	last := uint64(0)
	for _, step := range []struct {
		boot, since uint64
	}{{3, 0}, {3, 0}, {3, 50}, {3, 10_000}, {3, 9_000}, {4, 10}, {4, 1 << 40}, {4, 1 << 41}, {5, 60_000}} {
		if e.c.Boot != step.boot {
			e = New(Config{Boot: step.boot, Since: e.c.Since})
		}
		since = step.since
		if stamp := e.stamp(); stamp <= last {
			t.Errorf("start %d, %d ms: stamp %d after %d", step.boot, step.since, stamp, last)
		} else {
			last = stamp
		}
	}
}

func FuzzHandle(f *testing.F) {
	n := newNetwork(f)
	asker := n.engine(n.a, profile.Document{})
	ask := asker.Request(now, profile.Document{})
	answer, _, err := n.engine(n.b, n.doc).Handle(now, ask)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ask)
	f.Add(answer)
	f.Fuzz(func(t *testing.T, b []byte) {
		out, _, err := n.engine(n.b, n.doc).Handle(now, b)
		if err == nil && !bytes.Equal(b, ask) && out != nil {
			t.Error("a request was answered that nobody signed")
		}
		_, d, err := asker.Handle(now, b)
		if err == nil && d != nil && d.Serial != n.doc.Serial {
			t.Error("a document was taken that nobody signed")
		}
	})
}
