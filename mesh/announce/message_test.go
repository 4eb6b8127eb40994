package announce

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"halo.internal/identity"
	"halo.internal/model"
)

func gatewayMessage() Gateway {
	return Gateway{
		Stamp: Stamp{Epoch: 1, Boot: 7, Seq: 123456}, Steps: 2, WireGuardKey: bytes.Repeat([]byte{1}, 32), APIPort: 8443,
		CASHA256: bytes.Repeat([]byte{2}, 32), TimeMS: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).UnixMilli(),
		Quality: model.ClockGPS, Nonce: bytes.Repeat([]byte{3}, NonceSize), Instance: 1<<64 - 1,
	}
}

func nodeMessage() Node {
	return Node{
		Stamp: Stamp{Boot: 3, Seq: 99}, WireGuardKey: bytes.Repeat([]byte{4}, 32), Nonce: bytes.Repeat([]byte{5}, NonceSize),
		NextKey: bytes.Repeat([]byte{8}, 32), NextProof: bytes.Repeat([]byte{9}, identity.PossessionSize),
	}
}

func twinMessage() Twin {
	return Twin{Instance: 1 << 63, Standing: StandingServes, Epoch: 40_000, Aside: true, Nonce: bytes.Repeat([]byte{6}, NonceSize), Answer: bytes.Repeat([]byte{7}, NonceSize)}
}

func pastMessage() Past { return Past{Nonce: bytes.Repeat([]byte{10}, NonceSize), Boot: MaxBoot} }

var ignoreMarkers = cmpopts.IgnoreUnexported(Gateway{}, Node{}, Stamp{}, Twin{}, Past{})

func TestRoundTrip(t *testing.T) {
	network, node := identity.New(), identity.New()
	c := Codec{network.Public()}
	g, err := c.EncodeGateway(network, gatewayMessage())
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.EncodeNode(node, nodeMessage())
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.EncodeTwin(network, twinMessage())
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.EncodePast(network, pastMessage())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Decode(p); err != nil || !cmp.Equal(got, any(pastMessage()), ignoreMarkers) {
		t.Errorf("past: %v\n%s", err, cmp.Diff(got, any(pastMessage()), ignoreMarkers))
	}
	t.Logf("an answer has %d octets, a question %d, a word to another gateway %d", len(g), len(n), len(w))
	if got, err := c.Decode(w); err != nil || !cmp.Equal(got, any(twinMessage()), ignoreMarkers) {
		t.Errorf("twin: %v\n%s", err, cmp.Diff(got, any(twinMessage()), ignoreMarkers))
	}
	if got, err := c.Decode(g); err != nil || !cmp.Equal(got, any(gatewayMessage()), ignoreMarkers) {
		t.Errorf("gateway: %v\n%s", err, cmp.Diff(got, any(gatewayMessage()), ignoreMarkers))
	}
	want, key := nodeMessage(), node.Public()
	want.Key = key[:]
	if got, err := c.Decode(n); err != nil || !cmp.Equal(got, any(want), ignoreMarkers) {
		t.Errorf("node: %v\n%s", err, cmp.Diff(got, any(want), ignoreMarkers))
	}
}

// TestOnlyTheWholeTruthIsTaken flips every bit and cuts at every octet.
func TestOnlyTheWholeTruthIsTaken(t *testing.T) {
	network, node := identity.New(), identity.New()
	c := Codec{network.Public()}
	g, errG := c.EncodeGateway(network, gatewayMessage())
	n, errN := c.EncodeNode(node, nodeMessage())
	w, errW := c.EncodeTwin(network, twinMessage())
	p, errP := c.EncodePast(network, pastMessage())
	if err := errors.Join(errG, errN, errW, errP); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{g, n, w, p} {
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << (i % 8)
			if m, err := c.Decode(bad); err == nil {
				t.Fatalf("octet %d changed: taken as %+v", i, m)
			}
			if m, err := c.Decode(b[:i]); err == nil {
				t.Fatalf("cut to %d octets: taken as %+v", i, m)
			}
		}
		if _, err := c.Decode(append(bytes.Clone(b), 0)); err == nil {
			t.Error("a message with something behind it was taken")
		}
	}
}

func TestForgeries(t *testing.T) {
	network, other, node := identity.New(), identity.New(), identity.New()
	c := Codec{network.Public()}
	encode := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	short := gatewayMessage()
	short.WireGuardKey = short.WireGuardKey[:31]
	long := nodeMessage()
	long.Nonce = bytes.Repeat([]byte{1}, NonceSize+1)
	weak := nodeMessage()
	weak.NextProof = weak.NextProof[1:]
	proud, half := twinMessage(), twinMessage()
	proud.Standing++
	half.Answer = half.Answer[1:]
	// A node's message in a gateway's envelope, signed by the node for its own use.
	var e envelope
	if err := cbor.Unmarshal(encode(c.EncodeNode(node, nodeMessage())), &e); err != nil {
		t.Fatal(err)
	}
	e.Kind = kindGateway
	relabelled := encode(encMode.Marshal(e))
	e.Kind = 9
	unknown := encode(encMode.Marshal(e))
	for _, tc := range []struct {
		name string
		b    []byte
		want error
	}{
		{"gateway's message signed by a node", encode(c.EncodeGateway(node, gatewayMessage())), identity.ErrSignature},
		{"another network", encode(Codec{other.Public()}.EncodeGateway(other, gatewayMessage())), ErrNetwork},
		{"short key", encode(c.EncodeGateway(network, short)), ErrForm},
		{"long nonce", encode(c.EncodeNode(node, long)), ErrForm},
		{"short proof of the next key", encode(c.EncodeNode(node, weak)), ErrForm},
		{"word to another gateway signed by a node", encode(c.EncodeTwin(node, twinMessage())), identity.ErrSignature},
		{"a standing that there is not", encode(c.EncodeTwin(network, proud)), ErrForm},
		{"half an answer", encode(c.EncodeTwin(network, half)), ErrForm},
		{"node's message as a gateway's", relabelled, identity.ErrSignature},
		{"unknown kind", unknown, ErrForm},
		{"oversize", make([]byte, MaxSize+1), ErrForm},
		{"empty", nil, ErrForm},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := c.Decode(tc.b); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestStampsAreOrdered(t *testing.T) {
	order := []Stamp{{Epoch: 0, Boot: 1, Seq: 9}, {Epoch: 0, Boot: 2, Seq: 1}, {Epoch: 0, Boot: 2, Seq: 2}, {Epoch: 1, Boot: 1, Seq: 1}}
	for i, a := range order {
		for j, b := range order {
			if a.After(b) != (i > j) {
				t.Errorf("%v after %v: got %v", a, b, a.After(b))
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	network, err := identity.FromSeed(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	c := Codec{network.Public()}
	g, errG := c.EncodeGateway(network, gatewayMessage())
	n, errN := c.EncodeNode(network, nodeMessage())
	w, errW := c.EncodeTwin(network, twinMessage())
	p, errP := c.EncodePast(network, pastMessage())
	if err := errors.Join(errG, errN, errW, errP); err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Add(g)
	f.Add(w)
	f.Add(n)
	f.Add([]byte{0x84, 1, 0x44, 0, 0, 0, 0, 0x40, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := c.Decode(b)
		if err != nil {
			return
		}
		if g, ok := m.(Gateway); ok && (len(g.WireGuardKey) != 32 || len(g.Nonce) > NonceSize) {
			t.Fatalf("unchecked lengths: %+v", g)
		}
		if n, ok := m.(Node); ok && (len(n.WireGuardKey) != 32 || len(n.Nonce) > NonceSize) {
			t.Fatalf("unchecked lengths: %+v", n)
		}
	})
}

// FuzzBody decodes bodies whose signature fits: what a member that went mad can
// send.
func FuzzBody(f *testing.F) {
	network, err := identity.FromSeed(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	c := Codec{network.Public()}
	for _, v := range []any{gatewayMessage(), nodeMessage(), twinMessage(), pastMessage()} {
		b, err := encMode.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		tag := networkTag(c.Network)
		for kind, context := range map[uint8]string{kindGateway: gatewayContext, kindTwin: twinContext, kindPast: pastContext} {
			b, err := encMode.Marshal(envelope{Kind: kind, Network: tag, Body: body, Signature: network.Sign(context, signed(tag, body))})
			if err != nil {
				t.Fatal(err)
			}
			m, err := c.Decode(b)
			if err != nil {
				continue
			}
			switch m := m.(type) {
			case Gateway:
				if len(m.WireGuardKey) != 32 || len(m.CASHA256) != 0 && len(m.CASHA256) != 32 {
					t.Fatalf("unchecked lengths: %+v", m)
				}
			case Twin:
				if len(m.Nonce) > NonceSize || len(m.Answer) > NonceSize || m.Standing > StandingServes {
					t.Fatalf("unchecked: %+v", m)
				}
			case Past:
				if len(m.Nonce) != NonceSize || m.Boot > MaxBoot {
					t.Fatalf("unchecked: %+v", m)
				}
			}
		}
	})
}
