package sae

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/bigmod"
	"filippo.io/nistec"

	"halo.internal/model/dot11"
)

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func want(t testing.TB, what string, got []byte, expected string) {
	t.Helper()
	if hex.EncodeToString(got) != expected {
		t.Errorf("%s: expected %s, got %x", what, expected, got)
	}
}

// The example of IEEE Std 802.11-2020, annex J.10.
const (
	exampleRand    = "992465fd3daa3c60aa6565b7f62a2a7f2e12dd12f198faf4fbed89d7ff1ace94"
	exampleMask    = "9507a90f777a044d6a0830b91ea3d5dd70bece44e1acffb86983b5e1bf9fb322"
	exampleScalar  = "2e2c0f0db52440ad146d967114ce005ce1eab0aa2c2e5c2871b774f6c2575c65"
	exampleElement = "d5ad9e00829707aa36ba8b859738fc961d08243505f47c035376d7ac4bc8d7b9" + "5083bf43827d0fc31ed778dd3671fd21a46d1091d64b6f9a1e1272621325dbe1"
	examplePeer    = "591b96f3397fb945100848e7b550543b6720d88337ee93fc49fd6df7e08b5223"
	examplePeerE   = "e71b9bb048d3873f20556953a96c91536fd8ee6ca9b4a68a148b056a909be03e" + "83ae208f60f8ef5537858074db06687032399862999b511e0a1552a5fea317c2"
	exampleKCK     = "1e733f6d9bd53256287304338831b09a39406d121017073a5c30db36f36cb81a"
	examplePMK     = "4e4dfab1a2dd8ac1a91790f953faaa452ae5c6873ab75b63605ba663f8a7fe59"
	examplePMKID   = "8747a600eea3f9f22475df58ca1e5498"
)

func TestStandardExampleOfHuntingAndPecking(t *testing.T) {
	a, b := dot11.MAC(fromHex(t, "4d3f2fffe387")), dot11.MAC(fromHex(t, "a5d8aa958e3c"))
	pwe, err := hunt([]byte("mekmitasdigoat"), a, b)
	if err != nil {
		t.Fatal(err)
	}
	own, s, err := commit(pwe, bytes.NewReader(fromHex(t, exampleRand+exampleMask)))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "scalar", own.scalar[:], exampleScalar)
	want(t, "element", own.element[:], exampleElement)
	peer := values{[scalarSize]byte(fromHex(t, examplePeer)), [elementSize]byte(fromHex(t, examplePeerE))}
	if err := peer.check(); err != nil {
		t.Fatal(err)
	}
	k, err := derive(&s, &own, &peer, nil)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "KCK", k.kck[:], exampleKCK)
	want(t, "PMK", k.pmk[:], examplePMK)
	want(t, "PMKID", k.pmkid[:], examplePMKID)
}

func TestStandardExampleOfHashToElement(t *testing.T) {
	pt, err := passwordElement([]byte("byteme"), []byte("mekmitasdigoat"), []byte("psk4internet"))
	if err != nil {
		t.Fatal(err)
	}
	pwe, err := elementFor(pt, dot11.MAC(fromHex(t, "00095b66ec1e")), dot11.MAC(fromHex(t, "000b6bd90246")))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "PWE", pwe.Bytes()[1:], "c93049b9e64000f848201649e999f2b5c22dea69b5632c9df4d633b8aa1f6c1e"+
		"73634e94b53d82e7383a8d258199d9dc1a5ee8269d060382ccbf33e614ff59a0")
}

func TestScalarRange(t *testing.T) {
	for name, c := range map[string]struct {
		s    []byte
		want int
	}{
		"0":     {make([]byte, scalarSize), 0},
		"1":     {one, 0},
		"2":     {append(make([]byte, scalarSize-1), 2), 1},
		"q - 1": {addScalars(make([]byte, scalarSize), curve.qMinus1.Nat().Bytes(curve.q)), 1},
		"q":     {curve.qBytes, 0},
		"2^256": {bytes.Repeat([]byte{0xff}, scalarSize), 0},
	} {
		if got := inRange(c.s); got != c.want {
			t.Errorf("%s: expected %d, got %d", name, c.want, got)
		}
	}
	if len(wideModulus.Nat().Bytes(wideModulus)) != 49 {
		t.Error("the wide modulus is not 2^384 + 1")
	}
}

// halfP is (p-1)/2, the exponent of Euler's criterion.
var halfP = octets("7fffffff800000008000000000000000000000007fffffffffffffffffffffff")

// rightSide returns x³ - 3x + b, modulo p.
func rightSide(x *bigmod.Nat) *bigmod.Nat {
	y := copyOf(x, curve.p)
	y.Mul(x, curve.p)
	y.Sub(curve.three, curve.p)
	y.Mul(x, curve.p)
	return y.Add(curve.b, curve.p)
}

// isSquare returns 1 if y, not zero, has a square root modulo p, and 0 if not,
// by Euler's criterion: the time tells nothing about y.
func isSquare(y *bigmod.Nat) int {
	return int(bigmod.NewNat().Exp(y, halfP, curve.p).IsOne())
}

// TestSquares compares Euler's criterion with whether a point of that abscissa
// exists.
func TestSquares(t *testing.T) {
	x := make([]byte, scalarSize)
	for i := range 256 {
		x[31] = byte(i)
		n := field(hex.EncodeToString(x))
		_, err := lift(x, 0)
		if (isSquare(rightSide(n)) == 1) != (err == nil) {
			t.Errorf("%d: Euler's criterion and the curve differ", i)
		}
	}
}

// TestFieldElements compares the arithmetic of squares with bigmod's, at random
// and at the edges.
func TestFieldElements(t *testing.T) {
	random := seeded(3)
	edges := [][]byte{
		make([]byte, 32), one, curve.pBytes, curve.qBytes, bytes.Repeat([]byte{0xff}, 32), halfP, curve.pMinus2,
		append(bytes.Repeat([]byte{0xff}, 8), make([]byte, 24)...), append(make([]byte, 24), bytes.Repeat([]byte{0xff}, 8)...),
	}
	pick := func(i int) (b [scalarSize]byte) {
		if i < len(edges) {
			return [scalarSize]byte(edges[i])
		}
		io.ReadFull(random, b[:])
		return b
	}
	back := func(e fieldElement) []byte {
		e = e.times(&fieldElement{1})
		var b []byte
		for i := 3; i >= 0; i-- {
			b = binary.BigEndian.AppendUint64(b, e[i])
		}
		return b
	}
	for i := range 60 {
		for j := range 60 {
			x, y := pick(i), pick(j)
			nx, _ := bigmod.NewNat().SetOverflowingBytes(x[:], curve.p)
			ny, _ := bigmod.NewNat().SetOverflowingBytes(y[:], curve.p)
			ex, ey := newFieldElement(x), newFieldElement(y)
			want(t, "product", back(ex.times(&ey)), hex.EncodeToString(times(nx, ny).Bytes(curve.p)))
			want(t, "sum", back(ex.plus(&ey)), hex.EncodeToString(copyOf(nx, curve.p).Add(ny, curve.p).Bytes(curve.p)))
			want(t, "difference", back(ex.minus(&ey)), hex.EncodeToString(copyOf(nx, curve.p).Sub(ny, curve.p).Bytes(curve.p)))
			if got, want := onCurve(&x), isSquare(rightSide(nx)); got != want {
				t.Fatalf("%x: on the curve: expected %d, got %d", x, want, got)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

func BenchmarkOnCurve(b *testing.B) {
	x := [scalarSize]byte{31: 5}
	for b.Loop() {
		onCurve(&x)
	}
}

func TestMapOfZero(t *testing.T) {
	p, err := mapToCurve(field(hex.EncodeToString(make([]byte, 32))))
	if err != nil || p.Equal(nistec.NewP256Point()) == 1 {
		t.Errorf("expected the exceptional case to give a point, got %v", err)
	}
}

var benchMAC = [2]dot11.MAC{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}

func BenchmarkHunt(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := hunt([]byte("mekmitasdigoat"), benchMAC[0], benchMAC[1]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPasswordElement(b *testing.B) {
	for b.Loop() {
		if _, err := passwordElement([]byte("byteme"), []byte("mekmitasdigoat"), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkElementFor(b *testing.B) {
	pt, err := passwordElement([]byte("byteme"), []byte("mekmitasdigoat"), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := elementFor(pt, benchMAC[0], benchMAC[1]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExchange is one side's whole work for a handshake, without and with
// the password element that a peer keeps: Commit, the peer's Commit, both
// Confirms.
func BenchmarkExchange(b *testing.B) {
	for _, m := range []Method{HashToElement, HuntingAndPecking} {
		b.Run(strings.ReplaceAll(m.String(), " ", "-"), func(b *testing.B) {
			now := time.Unix(1_800_000_000, 0)
			var e [2]*Engine
			for i := range e {
				var err error
				if e[i], err = New(Config{Own: benchMAC[i], MeshID: []byte("m"), Password: []byte("p"), Method: m}, now); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				for i := range e {
					e[i].Forget(benchMAC[1-i])
					if err := e[i].Start(now, benchMAC[1-i]); err != nil {
						b.Fatal(err)
					}
				}
				for done := 0; done < 2; {
					for i := range e {
						frames, events := e[i].Take()
						done += len(events)
						for _, f := range frames {
							e[1-i].Handle(now, f.Bytes)
						}
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/2, "µs/side")
		})
	}
}
