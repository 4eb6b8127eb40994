package sae

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"filippo.io/nistec"

	"halo.internal/model/dot11"
)

func mustElement(t testing.TB) *nistec.P256Point {
	t.Helper()
	p, err := passwordElement([]byte("byteme"), []byte("password of nobody"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustParse(t testing.TB, frame []byte) any {
	t.Helper()
	f, err := parse(frame[dot11.HeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFramesComeBack(t *testing.T) {
	v := forgedCommit(t, 1).values
	for name, f := range map[string]commitFrame{
		"plain H2E":   {values: v},
		"plain HnP":   {method: HuntingAndPecking, values: v},
		"HnP token":   {method: HuntingAndPecking, values: v, token: []byte("token")},
		"all of H2E":  {values: v, token: []byte("token"), identifier: []byte("id"), rejected: []byte{20, 0, 21, 0}},
		"long tokens": {values: v, token: bytes.Repeat([]byte{1}, maxToken)},
	} {
		got, err := parse(f.append())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if g := got.(commitFrame); g.method != f.method || g.values != f.values || !bytes.Equal(g.token, f.token) ||
			!bytes.Equal(g.identifier, f.identifier) || !bytes.Equal(g.rejected, f.rejected) {
			t.Errorf("%s: expected %+v, got %+v", name, f, g)
		}
	}
	for _, m := range []Method{HashToElement, HuntingAndPecking} {
		d := demand{status: dot11.AntiCloggingTokenRequired, group: Group, token: []byte("token")}
		got, err := parse(d.appendFor(m))
		if err != nil {
			t.Fatal(err)
		}
		if token, err := got.(demand).tokenFor(m); err != nil || string(token) != "token" {
			t.Errorf("%v: expected the token, got %q, %v", m, token, err)
		}
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	v := forgedCommit(t, 1).values
	good := commitFrame{values: v}.append()
	otherGroup := bytes.Clone(good)
	binary.LittleEndian.PutUint16(otherGroup[6:], 20)
	rejects := commitFrame{values: v, rejected: []byte{19, 0}}.append()
	twice := dot11.AppendElement(commitFrame{values: v, token: []byte("a")}.append(), dot11.TokenContainer, []byte("b"))
	for name, b := range map[string][]byte{
		"empty":             nil,
		"short":             good[:len(good)-1],
		"other group":       otherGroup,
		"19 was rejected":   rejects,
		"odd groups":        commitFrame{values: v, rejected: []byte{20, 0, 21}}.append(),
		"token twice":       twice,
		"torn element":      append(bytes.Clone(good), 255, 9),
		"transaction 3":     start(3, dot11.Success),
		"short confirm":     confirmFrame{}.append()[:30],
		"token without one": start(transactionCommit, dot11.AntiCloggingTokenRequired),
		"endless HnP token": commitFrame{method: HuntingAndPecking, values: v, token: make([]byte, maxToken+1)}.append(),
	} {
		if f, err := parse(b); err == nil {
			t.Errorf("%s: expected a refusal, got %+v", name, f)
		}
	}
	if _, err := parse(otherGroup); !errors.Is(err, errGroup) {
		t.Errorf("expected the group to be named, got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	v := forgedCommit(f, 1).values
	f.Add(commitFrame{values: v, token: []byte("token"), identifier: []byte("id"), rejected: []byte{20, 0}}.append())
	f.Add(commitFrame{method: HuntingAndPecking, values: v, token: []byte("token")}.append())
	f.Add(demand{status: dot11.AntiCloggingTokenRequired, group: Group, token: []byte("t")}.appendFor(HashToElement))
	f.Add(confirmFrame{counter: 1}.append())
	for _, x := range fixtures(f) {
		for _, fr := range x.Frames {
			if fr.sae() {
				f.Add(fr.bytes(f)[dot11.HeaderSize:])
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parse(b)
		if err != nil {
			return
		}
		switch g := got.(type) {
		case commitFrame:
			again, err := parse(g.append())
			if err != nil {
				t.Fatalf("own form is refused: %v", err)
			}
			if h := again.(commitFrame); h.values != g.values || !bytes.Equal(h.token, g.token) {
				t.Errorf("expected %+v, got %+v", g, h)
			}
		case demand:
			for _, m := range []Method{HashToElement, HuntingAndPecking} {
				if token, err := g.tokenFor(m); err == nil && len(token) > maxToken {
					t.Errorf("token of %d octets", len(token))
				}
			}
		}
	})
}

// FuzzHandle plays any frames to an engine that has one peer. The key stays,
// and nobody else is accepted.
func FuzzHandle(f *testing.F) {
	f.Add(commitFrame{values: forgedCommit(f, 1).values}.append(), true, uint16(10))
	f.Add(confirmFrame{counter: 9}.append(), false, uint16(2000))
	f.Add(start(transactionConfirm, dot11.UnspecifiedFailure), true, uint16(0))
	f.Fuzz(func(t *testing.T, body []byte, member bool, ms uint16) {
		now := time.Unix(1_800_000_000, 0)
		e, err := New(Config{Own: address(1), MeshID: []byte("m"), Password: []byte("p"), Rand: seeded(1)}, now)
		if err != nil {
			t.Fatal(err)
		}
		p := e.add(now, address(2))
		p.sas = []*association{{keys: keys{pmk: PMK{1}, pmkid: PMKID{1}}, since: now, linger: now.Add(time.Second)}}
		from := address(3)
		if member {
			from = address(2)
		}
		for range 3 {
			e.Handle(now, forge(from, e.c.Own, body))
			now = now.Add(time.Duration(ms) * time.Millisecond)
			e.Advance(now)
		}
		if _, ok := e.PMK(address(2), PMKID{1}); !ok || e.State(address(3)) == Authenticated {
			t.Error("a frame changed who is accepted")
		}
	})
}
