package profile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/model/bundle"
)

func key(t testing.TB, n int) identity.Key {
	t.Helper()
	seed := sha256.Sum256(fmt.Append(nil, "test ", n))
	k, err := identity.FromSeed(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// endless is randomness that is the same every time.
type endless struct{ n byte }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i], e.n = e.n, e.n+1
	}
	return len(b), nil
}

var day = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

func mesh(channel int, psk string) bundle.Mesh {
	return bundle.Mesh{SSID: "ETHRX0001-8A", PSK: psk, Routing: "BATMAN_IV", Channel: channel}.WithDefaults()
}

func draft(t testing.TB, members int) Draft {
	d := Draft{
		Epoch: 40_000, Serial: 7, Issued: day, Mesh: mesh(6, "the secret that is to hold"),
		Former: []Former{{mesh(1, "the secret before it"), day.Add(Keep)}, {mesh(1, "the one before that"), day.Add(Keep / 2)}},
		Random: &endless{},
	}
	for i := range members {
		d.Members = append(d.Members, key(t, i).Public())
	}
	return d
}

func signed(t testing.TB, d Draft) Document {
	t.Helper()
	doc, err := Sign(key(t, 0), d)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestMembersOpenIt(t *testing.T) {
	network := key(t, 0)
	for _, members := range []int{1, 2, 3, 4, 5, 9, 250} {
		d := draft(t, members)
		doc := signed(t, d)
		parsed, err := Parse(network.Public(), doc.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		for i := range members {
			x, err := parsed.Excerpt(key(t, i).Public())
			if err != nil {
				t.Fatal(err)
			}
			raw := x.Marshal()
			again, err := Parse(network.Public(), raw)
			if err != nil {
				t.Fatalf("excerpt %d of %d: %v", i, members, err)
			}
			if again.Whole() || len(raw) > 1000 {
				t.Errorf("excerpt %d of %d: whole %v, %d octets", i, members, again.Whole(), len(raw))
			}
			for _, from := range []Document{parsed, again} {
				o, err := from.Open(key(t, i))
				if err != nil {
					t.Fatal(err)
				}
				if o.Mesh != d.Mesh || len(o.Former) != 2 || o.Former[1].Mesh != d.Former[1].Mesh || !o.Former[0].Until.Equal(d.Former[0].Until) {
					t.Fatalf("member %d of %d got other profiles", i, members)
				}
			}
		}
		stranger := key(t, members)
		if _, err := parsed.Open(stranger); !errors.Is(err, ErrNoMember) {
			t.Errorf("a stranger got %v", err)
		}
		if _, err := parsed.Excerpt(stranger.Public()); !errors.Is(err, ErrNoMember) {
			t.Errorf("an excerpt for a stranger: %v", err)
		}
		if parsed.Mesh.PSK != "" || parsed.Former[0].Mesh.PSK != "" || doc.Mesh.PSK != "" {
			t.Error("a document has secrets before it was opened")
		}
	}
}

// TestHopPenalty: a document that names none is as it was before there was one.
func TestHopPenalty(t *testing.T) {
	d := draft(t, 3)
	without := signed(t, d)
	d.Mesh.HopPenalty = 60
	with := signed(t, d)
	if n := len(with.head) - len(without.head); n != 3 { // an array of two, and an octet of a number that has two
		t.Errorf("the penalty takes %d octets, want 3", n)
	}
	for _, doc := range []Document{without, with} {
		got, err := Parse(key(t, 0).Public(), doc.Marshal())
		if err != nil || got.Mesh != doc.Mesh || len(got.Former) != len(doc.Former) || got.Former[0].Mesh != doc.Former[0].Mesh {
			t.Errorf("got %+v, %v, want %+v", got.Mesh, err, doc.Mesh)
		}
	}
	var p parameters
	if err := p.UnmarshalCBOR(must(encMode.Marshal(penalised{Basic: parametersOf(d.Mesh).basic}))); err == nil {
		t.Error("a penalty of 0 was taken in the longer form")
	}
}

// TestSizes keeps to what ARCHITECTURE.md says of airtime.
func TestSizes(t *testing.T) {
	d := draft(t, MaxMembers)
	d.Former = nil
	for i := range MaxFormer {
		m := mesh(1+i, strings.Repeat("p", 63))
		m.HaLowChannel, m.HaLowScheme, m.SAE, m.Routing, m.HopPenalty = 44, "802.11-2024", bundle.HuntingAndPecking, "BATMAN_IV", 255
		d.Former = append(d.Former, Former{m, day.Add(Keep)})
	}
	d.Mesh = d.Former[0].Mesh
	d.Mesh.SSID = strings.Repeat("s", 32)
	for i := range d.Former {
		d.Former[i].Mesh.SSID = d.Mesh.SSID
	}
	doc := signed(t, d)
	x, err := doc.Excerpt(key(t, 5).Public())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(x.Marshal()); n > MaxExcerpt {
		t.Errorf("the longest excerpt has %d octets, want at most %d", n, MaxExcerpt)
	}
	if _, err := Parse(key(t, 0).Public(), x.Marshal()); err != nil {
		t.Errorf("the longest excerpt: %v", err)
	}
	if n := len(signed(t, draft(t, 250)).Marshal()); n > 17<<10 {
		t.Errorf("a document for 250 nodes has %d octets", n)
	}
	if _, err := Sign(key(t, 0), draft(t, MaxMembers+1)); !errors.Is(err, ErrForm) {
		t.Errorf("too many members: %v", err)
	}
}

// TestNothingCanBeMovedElsewhere: an entry of one document or member is none of
// another.
func TestNothingCanBeMovedElsewhere(t *testing.T) {
	network := key(t, 0).Public()
	doc := signed(t, draft(t, 5))
	raw := doc.Marshal()
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, err := Parse(network, bad); err == nil {
			t.Fatalf("a document with octet %d changed was taken", i)
		}
	}
	x, err := doc.Excerpt(key(t, 3).Public())
	if err != nil {
		t.Fatal(err)
	}
	raw = x.Marshal()
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, err := Parse(network, bad); err == nil {
			t.Fatalf("an excerpt with octet %d changed was taken", i)
		}
	}
	later := draft(t, 5)
	later.Serial++
	other := signed(t, later)
	other.entries = doc.entries // the same randomness, the same members
	if _, err := other.Open(key(t, 3)); err == nil {
		t.Error("the entries of one document opened another")
	}
	swapped := doc
	swapped.entries = append([]entry{}, doc.entries...)
	a, _ := doc.find(key(t, 3).Public())
	b, _ := doc.find(key(t, 4).Public())
	swapped.entries[a].sealed = doc.entries[b].sealed
	if _, err := swapped.Open(key(t, 3)); err == nil {
		t.Error("another member's entry opened")
	}
	if _, err := Parse(key(t, 1).Public(), doc.Marshal()); !errors.Is(err, identity.ErrSignature) {
		t.Errorf("of another network: %v", err)
	}
}

func TestOrder(t *testing.T) {
	at := func(epoch, serial uint64) Document { return Document{Epoch: epoch, Serial: serial} }
	for _, tc := range []struct {
		a, b Document
		want bool
	}{{at(1, 1), Document{}, true}, {at(1, 2), at(1, 1), true}, {at(1, 1), at(1, 1), false}, {at(2, 1), at(1, 9), true}, {at(1, 9), at(2, 1), false}} {
		if got := tc.a.After(tc.b); got != tc.want {
			t.Errorf("%d/%d after %d/%d: got %v", tc.a.Epoch, tc.a.Serial, tc.b.Epoch, tc.b.Serial, got)
		}
	}
}

func TestWhatIsNotSigned(t *testing.T) {
	for name, change := range map[string]func(*Draft){
		"no member":       func(d *Draft) { d.Members = nil },
		"no secret":       func(d *Draft) { d.Mesh.PSK = "" },
		"bad channel":     func(d *Draft) { d.Mesh.Channel = 15 },
		"another mesh ID": func(d *Draft) { d.Former[0].Mesh.SSID = "ANOTHER" },
		"too many former": func(d *Draft) { d.Former = make([]Former, MaxFormer+1) },
		"a key of small order": func(d *Draft) {
			d.Members = []identity.PublicKey{{}, {1}}
		},
	} {
		d := draft(t, 3)
		change(&d)
		if _, err := Sign(key(t, 0), d); !errors.Is(err, ErrForm) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	d := draft(t, 3)
	d.Members = append(d.Members, identity.PublicKey{}, identity.PublicKey{1}, d.Members[0])
	if doc := signed(t, d); doc.Members != 3 {
		t.Errorf("keys that seal nothing, and one that came twice: got %d members, want 3", doc.Members)
	}
}

func TestItPrintsNoSecret(t *testing.T) {
	o, err := signed(t, draft(t, 2)).Open(key(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(o), fmt.Sprintf("%+v", o), fmt.Sprintf("%#v", o), fmt.Sprintf("%s", o)} {
		if strings.Contains(s, "secret") {
			t.Errorf("%s prints a secret", s)
		}
	}
}

// TestGolden: members of another release have to read it.
func TestGolden(t *testing.T) {
	doc := signed(t, draft(t, 3))
	x, err := doc.Excerpt(key(t, 2).Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"whole.hex": doc.Marshal(), "excerpt.hex": x.Marshal()} {
		file := filepath.Join("testdata", name)
		text := []byte(hex.EncodeToString(b) + "\n")
		if *update {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, text) {
			t.Errorf("%s: what is made differs from what it was", name)
		}
		raw, err := hex.DecodeString(strings.TrimSpace(string(want)))
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(key(t, 0).Public(), raw)
		if err != nil {
			t.Fatal(err)
		}
		if o, err := d.Open(key(t, 2)); err != nil || o.Mesh != mesh(6, "the secret that is to hold") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
