package apitype

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"halo.internal/model"
)

// Lists of nodes are written as encoding/json writes them, to the octet.
func TestNodesAsJSON(t *testing.T) {
	at := time.Date(2026, 11, 29, 11, 50, 0, 5e6, time.UTC)
	for _, tc := range []struct {
		name string
		list NodeList
	}{
		{"nothing", NodeList{}},
		{"no nodes", NodeList{Items: []Node{}}},
		{"nothing of a node", NodeList{Items: []Node{{}}}},
		{"several", NodeList{Items: []Node{listed(1), {}, listed(2)}, Next: "n02"}},
		{"text", NodeList{Items: []Node{{Name: "<&>\"\\\u2028", State: "\x00é\xff", MACs: []string{"\t", "", "02:00:00:00:00:01"}, Quarantined: &Quarantine{Reason: "\x7f"}}}, Next: "<"}},
		{"addresses", NodeList{Items: []Node{{OverlayV4: netip.MustParseAddr("::ffff:10.42.0.1"), OverlayV6: netip.MustParseAddr("fe80::1%eth0"), Underlay: netip.MustParseAddr("fe80::1%<\"")},
			{Clients: netip.PrefixFrom(netip.MustParseAddr("10.43.1.0"), -1)}, {Clients: netip.MustParsePrefix("fd00::/64")}}}},
		{"times", NodeList{Items: []Node{{Joined: at.In(time.FixedZone("", 5400)), LastSeen: new(at.Add(1))}, {LastSeen: &time.Time{}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) { sameNodes(t, tc.list) })
	}
	noise := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var l NodeList
		fill(reflect.ValueOf(&l).Elem(), noise)
		sameNodes(t, l)
	}
}

// fill sets all fields of a value, some of them to nothing: one that comes to a type is
// among them.
func fill(v reflect.Value, noise *rand.Rand) {
	if noise.IntN(4) == 0 {
		return
	}
	text := func() string {
		b := make([]byte, noise.IntN(9))
		for i := range b {
			b[i] = byte(noise.IntN(256))
		}
		return string(b)
	}
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.UnixMilli(noise.Int64N(4e12)).UTC()
		return
	case *netip.Addr:
		*p = netip.AddrFrom16([16]byte{0xfd, byte(noise.IntN(256)), 15: byte(noise.IntN(256))})
		return
	case *netip.Prefix:
		*p = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(noise.IntN(256))}), noise.IntN(33))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), noise)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), noise.IntN(4), 4))
		for i := range v.Len() {
			fill(v.Index(i), noise)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), noise)
	case reflect.String:
		v.SetString(text())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(noise.Int64() - noise.Int64())
	case reflect.Uint64:
		v.SetUint(noise.Uint64())
	case reflect.Float64:
		v.SetFloat(noise.NormFloat64() * 90)
	default:
		panic(fmt.Sprintf("nothing to fill a %s with", v.Type()))
	}
}

func sameNodes(t *testing.T, l NodeList) {
	t.Helper()
	want, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.AppendJSON(nil); err != nil || string(got) != string(want) {
		t.Fatalf("got\n%s, %v\nwant\n%s", got, err, want)
	}
}

// What JSON cannot carry is an error, as it is of encoding/json.
func TestNodesThatAreNoJSON(t *testing.T) {
	late := time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, n := range []Node{{Joined: late}, {LastSeen: &late}, {Quarantined: &Quarantine{Since: late}}} {
		if _, err := json.Marshal(n); err == nil {
			t.Fatal("encoding/json takes it")
		}
		if _, err := (NodeList{Items: []Node{n}}).AppendJSON(nil); err == nil {
			t.Errorf("%+v: expected an error", n)
		}
	}
}

// listed is a node as a list usually has it.
func listed(i int) Node {
	at := time.Date(2026, 11, 29, 11, 50, 0, i*1e6, time.UTC)
	return Node{
		ID: fmt.Sprintf("n-abcdefghij2345abc%03d", i), Name: fmt.Sprintf("n%03d", i), Role: model.RoleNode, Online: true, State: "ok", Board: "rpi4b", Kernel: "6.12.57+deb13-arm64",
		Version: "v0.1.0-12-gabc1234", Commit: "df36bd63d89dd4a54556b5f5935b99452f3a716f", Slot: "a", UptimeS: 86_400, Boot: 7,
		OverlayV4: netip.AddrFrom4([4]byte{10, 42, byte(i >> 8), byte(i)}), OverlayV6: netip.MustParseAddr("fd12:3456:789a:1:2345:6789:abcd:ef01"), Underlay: netip.MustParseAddr("fd12:3456:789a:0:2345:6789:abcd:ef01"),
		Clients:     netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 43, byte(i), 0}), 24),
		IdentityKey: "dGhpcyBpcyBub3QgYSBrZXkgYnV0IGFzIGxvbmcuLi4=", WireGuardKey: "dGhpcyBpcyBub3QgYSBrZXkgYnV0IGFzIGxvbmcuLi4=",
		MACs: []string{"02:00:00:00:00:01", "02:00:00:00:00:02"}, AdmittedBy: "token:0f3a9c", Joined: at, LastSeen: &at, Serial: "10000000abcdef01",
	}
}

// BenchmarkNodesAsJSON writes a list of 250 nodes.
func BenchmarkNodesAsJSON(b *testing.B) {
	var l NodeList
	for i := range 250 {
		l.Items = append(l.Items, listed(i))
	}
	b.Run("here", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.AppendJSON(nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(l); err != nil {
				b.Fatal(err)
			}
		}
	})
}
