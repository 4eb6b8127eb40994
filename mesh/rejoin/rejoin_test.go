package rejoin

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/profile"
	"halo.internal/model/bundle"
)

var now = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

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
		Epoch: 1, Serial: 2, Issued: now, Mesh: bundle.Mesh{SSID: "M", PSK: "the new secret", Routing: "BATMAN_IV", Channel: 6},
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
		Member: func(tag Tag) (identity.PublicKey, bool) {
			for _, m := range []identity.Key{n.key, n.a, n.b} {
				if TagOf(m.Public()) == tag {
					return m.Public(), true
				}
			}
			return identity.PublicKey{}, false
		},
		Document: func() (profile.Document, bool) { return doc, doc.Whole() },
	})
}

func TestAMemberGetsWhatItMissed(t *testing.T) {
	n := newNetwork(t)
	old, current := n.engine(n.a, profile.Document{}), n.engine(n.b, n.doc)
	ask := old.Request(profile.Document{Epoch: 1, Serial: 1})
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
	good := n.engine(n.a, profile.Document{}).Request(before)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	other := newNetwork(t)
	other.a = n.a // the same member, in another network
	for name, tc := range map[string]struct {
		to   *Engine
		ask  []byte
		want error
	}{
		"a revoked node":                  {n.engine(n.b, n.doc), n.engine(n.revoked, profile.Document{}).Request(before), ErrMember},
		"a stranger in a member's name":   {n.engine(n.b, n.doc), forged, identity.ErrSignature},
		"who has it":                      {n.engine(n.b, n.doc), n.engine(n.a, profile.Document{}).Request(n.doc), ErrNothing},
		"of one with an excerpt":          {n.engine(n.b, x), good, ErrNothing},
		"of one without any":              {n.engine(n.b, profile.Document{}), good, ErrNothing},
		"its own words, come back":        {n.engine(n.a, n.doc), good, ErrMember},
		"a request for another network":   {n.engine(n.b, n.doc), other.engine(n.a, profile.Document{}).Request(before), identity.ErrSignature},
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

// TestAFloodCostsLittle: strangers can repeat what they have heard.
func TestAFloodCostsLittle(t *testing.T) {
	n := newNetwork(t)
	e := n.engine(n.b, n.doc)
	ask := n.engine(n.a, profile.Document{}).Request(profile.Document{})
	answers := 0
	for i := range 1000 {
		if answer, _, _ := e.Handle(now.Add(time.Duration(i)*10*time.Millisecond), ask); answer != nil {
			answers++
		}
	}
	if answers != 3 { // in ten seconds
		t.Errorf("got %d answers, want 3", answers)
	}
}

func FuzzHandle(f *testing.F) {
	n := newNetwork(f)
	asker := n.engine(n.a, profile.Document{})
	ask := asker.Request(profile.Document{})
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
