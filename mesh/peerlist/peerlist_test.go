package peerlist

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"halo.internal/identity"
	"halo.internal/model"
)

func key(t testing.TB, n byte) identity.Key {
	t.Helper()
	k, err := identity.FromSeed(bytes.Repeat([]byte{n}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sample is a list of three members.
func sample(t testing.TB) List {
	t.Helper()
	issued := time.Date(2026, 11, 28, 7, 0, 0, 0, time.UTC)
	l := List{Epoch: 332000, Version: 7, Issued: issued, Expires: issued.Add(Validity), Operators: model.Operators{Floor: 3, Revoked: []uint64{4, 9}, Codes: 1}}
	for i := range byte(3) {
		k := key(t, 10+i)
		p := Peer{Key: k.Public(), WireGuard: [32]byte{10 + i}, Overlay: netip.AddrFrom4([4]byte{10, 42, 0, 2 + i}), Boot: uint64(i), Steps: uint32(2 * i)}
		if i > 0 {
			p.Clients = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 43, i, 0}), 24)
		}
		l.Peers = append(l.Peers, p)
	}
	return l
}

var comparable = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func TestRoundTrip(t *testing.T) {
	network := key(t, 1)
	for name, change := range map[string]func(*List){
		"three":                 func(*List) {},
		"none":                  func(l *List) { l.Peers = []Peer{} },
		"nobody's certificates": func(l *List) { l.Operators = model.Operators{} },
		"out of order": func(l *List) {
			slices.Reverse(l.Peers)
		},
	} {
		l := sample(t)
		change(&l)
		b, err := Sign(network, l)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := Parse(network.Public(), b)
		if diff := cmp.Diff(l, got, comparable); err != nil || diff != "" { // Sign has put it in order
			t.Errorf("%s: %v (-expected +got):\n%s", name, err, diff)
		}
		for _, p := range l.Peers {
			if found, ok := got.Find(p.Key); !ok || found != p {
				t.Errorf("%s: found %+v, %v", name, found, ok)
			}
		}
		if _, ok := got.Find(network.Public()); ok {
			t.Errorf("%s: found the gateway", name)
		}
	}
}

func TestRefused(t *testing.T) {
	network := key(t, 1)
	for name, change := range map[string]func(*List){
		"malformed peer list: expected an end after": func(l *List) { l.Expires = l.Issued },
		"expected keys in order, each once":          func(l *List) { l.Peers[1].Key = l.Peers[0].Key },
		"it is the gateway":                          func(l *List) { l.Peers[0].Key = network.Public() },
		"its WireGuard key is zero":                  func(l *List) { l.Peers[0].WireGuard = [32]byte{} },
		"have the same WireGuard key":                func(l *List) { l.Peers[0].WireGuard = l.Peers[1].WireGuard },
		"have the same overlay address":              func(l *List) { l.Peers[0].Overlay = l.Peers[1].Overlay },
		"have the same network of clients":           func(l *List) { l.Peers[1].Clients, l.Peers[0].Clients = l.Peers[2].Clients, l.Peers[2].Clients },
		"expected an address in 10.42.0.0/16 other than the gateway's, got 10.42.0.1": func(l *List) { l.Peers[0].Overlay = netip.MustParseAddr("10.42.0.1") },
		"expected an address in 10.42.0.0/16 other than the gateway's, got fd00::1":   func(l *List) { l.Peers[0].Overlay = netip.MustParseAddr("fd00::1") },
		"expected clients in a /24 of 10.43.0.0/16, got 10.41.0.0/24":                 func(l *List) { l.Peers[0].Clients = netip.MustParsePrefix("10.41.0.0/24") },
		"expected clients in a /24 of 10.43.0.0/16, got 10.43.0.0/16":                 func(l *List) { l.Peers[0].Clients = netip.MustParsePrefix("10.43.0.0/16") },
		"expected numbers from 3 on in order, each once, got 2 at 0":                  func(l *List) { l.Operators.Revoked = []uint64{2} },
		"expected numbers from 3 on in order, each once, got 9 at 1":                  func(l *List) { l.Operators.Revoked = []uint64{9, 9} },
		"revoked: expected at most 256, got 257":                                      func(l *List) { l.Operators.Revoked = make([]uint64, model.MaxRevoked+1) },
		"expected at most 1024 peers": func(l *List) {
			l.Peers = make([]Peer, MaxPeers+1)
		},
	} {
		l := sample(t)
		change(&l)
		if _, err := Sign(network, l); err == nil || !errors.Is(err, ErrForm) || !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b, err := Sign(network, sample(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(key(t, 2).Public(), b); !errors.Is(err, identity.ErrSignature) {
		t.Errorf("of another network: %v", err)
	}
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 1
		if _, err := Parse(network.Public(), bad); err == nil {
			t.Fatalf("with octet %d changed it was taken", i)
		}
		if _, err := Parse(network.Public(), b[:i]); err == nil {
			t.Fatalf("cut to %d octets it was taken", i)
		}
	}
	if _, err := Parse(network.Public(), make([]byte, MaxSize+1)); !errors.Is(err, ErrForm) {
		t.Errorf("too long: %v", err)
	}
}

// TestABigNetwork fits with all that a peer may have.
func TestABigNetwork(t *testing.T) {
	network := key(t, 1)
	l := List{Epoch: 1 << 62, Version: 1 << 62, Issued: time.Now(), Expires: time.Now().Add(Validity)}
	for i := range MaxPeers {
		var p Peer
		p.Key[0], p.Key[1] = byte(i>>8), byte(i)
		p.WireGuard[0], p.WireGuard[1], p.WireGuard[2] = byte(i>>8), byte(i), 1
		p.Overlay = netip.AddrFrom4([4]byte{10, 42, 2 + byte(i>>8), byte(i)})
		if i < 256 {
			p.Clients = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 43, byte(i), 0}), 24)
		}
		p.Boot, p.Steps = 1<<62, 1<<31
		l.Peers = append(l.Peers, p)
	}
	b, err := Sign(network, l)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(network.Public(), b); err != nil || len(got.Peers) != MaxPeers {
		t.Errorf("%d octets: %v", len(b), err)
	}
	t.Logf("%d octets for %d peers", len(b), MaxPeers)
}

func TestOrder(t *testing.T) {
	l := sample(t)
	for name, tc := range map[string]struct {
		change  func(*List)
		after   bool
		members bool
	}{
		"the same":       {func(*List) {}, false, true},
		"next version":   {func(l *List) { l.Version++ }, true, true},
		"one before":     {func(l *List) { l.Version-- }, false, true},
		"next epoch":     {func(l *List) { l.Epoch, l.Version = l.Epoch+1, 0 }, true, true},
		"epoch before":   {func(l *List) { l.Epoch, l.Version = l.Epoch-1, l.Version+9 }, false, true},
		"one has begun":  {func(l *List) { l.Version, l.Peers[0].Boot = l.Version+1, 99 }, true, true},
		"one is gone":    {func(l *List) { l.Version, l.Peers = l.Version+1, l.Peers[1:] }, true, false},
		"one is revoked": {func(l *List) { l.Operators.Revoked = []uint64{4, 9, 11} }, false, false},
		"some are over":  {func(l *List) { l.Operators.Floor = 4 }, false, false},
		"other codes":    {func(l *List) { l.Operators.Codes = 2 }, false, false},
		"another key":    {func(l *List) { l.Version, l.Peers[0].WireGuard = l.Version+1, [32]byte{99} }, true, true},
		"a next key":     {func(l *List) { l.Version, l.Peers[0].Next = l.Version+1, [32]byte{99} }, true, true},
		"others clients": {func(l *List) { l.Peers[0].Clients = netip.MustParsePrefix("10.43.9.0/24") }, false, false},
	} {
		other := sample(t)
		tc.change(&other)
		if got := other.After(l); got != tc.after {
			t.Errorf("%s: after: %v", name, got)
		}
		if got := other.Members(l); got != tc.members {
			t.Errorf("%s: the same members: %v", name, got)
		}
	}
	if err := l.Valid(l.Expires.Add(-time.Second)); err != nil {
		t.Error(err)
	}
	if err := l.Valid(l.Expires); !errors.Is(err, ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
}

func TestVersionsSayWhatPresses(t *testing.T) {
	l := List{Epoch: 1}
	l.Version = l.Following(1000, true)
	if l.Version < 1000 || l.Version > 1000+255 {
		t.Errorf("the first is version %d, want 1000 or the next row", l.Version)
	}
	had := l
	for i := range 255 {
		if l.Version = l.Following(1<<40, false); had.Presses(1, l.Version) {
			t.Fatalf("the %dth that does not press, version %d after %d, presses", i, l.Version, had.Version)
		}
	}
	next := l.Following(1, true)
	if next <= l.Version || !l.Presses(1, next) || !had.Presses(1, next) || !had.Presses(1, next+7) {
		t.Errorf("version %d after %d does not press", next, l.Version)
	}
	if !had.Presses(2, had.Version) {
		t.Error("another epoch does not press")
	}
	if v := l.Following(next+1<<40, true); v < next+1<<40 {
		t.Errorf("version %d is below the least", v)
	}
}

func TestStale(t *testing.T) {
	l := sample(t)
	for after, want := range map[time.Duration]bool{
		-time.Second: true, 0: false, Validity / 2: false, Validity/2 + time.Second: true, 2 * Validity: true,
	} {
		if got := l.Stale(l.Issued.Add(after)); got != want {
			t.Errorf("%s after it was issued: %v, want %v", after, got, want)
		}
	}
}

// FuzzParse holds that what is taken can be signed again, to the octet.
func FuzzParse(f *testing.F) {
	network := key(f, 1)
	l := sample(f)
	for _, n := range []int{0, 1, 3} {
		c := l
		c.Peers = slices.Clone(l.Peers[:n])
		b, err := Sign(network, c)
		if err != nil {
			f.Fatal(err)
		}
		var e envelope
		if err := decMode.Unmarshal(b, &e); err != nil {
			f.Fatal(err)
		}
		f.Add(e.Body)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := encMode.Marshal(envelope{Body: raw, Signature: network.Sign(context, raw)}) // as if the gateway had gone mad
		if err != nil {
			t.Fatal(err)
		}
		l, err := Parse(network.Public(), b)
		if err != nil {
			return
		}
		again, err := Sign(network, l)
		if err != nil {
			t.Fatalf("what was taken cannot be signed: %v", err)
		}
		if got, err := Parse(network.Public(), again); err != nil || cmp.Diff(l, got, comparable) != "" {
			t.Errorf("%v, %+v became %+v", err, l, got)
		}
	})
}

func TestReborn(t *testing.T) {
	l := sample(t) // its second member is in life 1.2
	for _, tc := range []struct {
		name  string
		key   identity.PublicKey
		boot  uint64
		steps uint32
		ok    bool
	}{
		{"a restart", key(t, 11).Public(), 2, 0, true},
		{"a step", key(t, 11).Public(), 1, 3, true},
		{"the same", key(t, 11).Public(), 1, 2, false},
		{"a step back", key(t, 11).Public(), 1, 1, false},
		{"an earlier life", key(t, 11).Public(), 0, 9, false},
		{"nobody", key(t, 99).Public(), 9, 9, false},
	} {
		got, ok := l.Reborn(tc.key, tc.boot, tc.steps)
		if ok != tc.ok {
			t.Errorf("%s: news: %v", tc.name, ok)
		}
		if !ok {
			continue
		}
		if p, _ := got.Find(tc.key); p.Boot != tc.boot || p.Steps != tc.steps || got.Version != l.Version || !got.Members(l) {
			t.Errorf("%s: got %+v", tc.name, got)
		}
		if d := cmp.Diff(sample(t), l, comparable); d != "" {
			t.Errorf("%s: the list itself has changed:\n%s", tc.name, d)
		}
	}
}

func TestWithdraws(t *testing.T) {
	newcomer := key(t, 99)
	for name, tc := range map[string]struct {
		change func(*List)
		want   bool
	}{
		"nothing":                        {func(*List) {}, false},
		"a life, and keys":               {func(l *List) { l.Peers[0].Boot, l.Peers[1].WireGuard, l.Peers[1].Next = 9, [32]byte{78}, [32]byte{79} }, false},
		"a newcomer":                     {func(l *List) { l.Peers = append(l.Peers, Peer{Key: newcomer.Public()}) }, false},
		"a name":                         {func(l *List) { l.Peers[0].Name = "mast" }, false},
		"one is let in again":            {func(l *List) { l.Revoked = nil }, false},
		"a certificate that has expired": {func(l *List) { l.Operators.Revoked = l.Operators.Revoked[1:] }, false},
		"one is gone":                    {func(l *List) { l.Peers = l.Peers[1:] }, true},
		"one for another":                {func(l *List) { l.Peers[2] = Peer{Key: newcomer.Public()} }, true},
		"one is revoked":                 {func(l *List) { l.Revoked = append(l.Revoked, "n-b") }, true},
		"another is revoked instead":     {func(l *List) { l.Revoked = []string{"n-b"} }, true},
		"a certificate":                  {func(l *List) { l.Operators.Revoked = append(l.Operators.Revoked, 12) }, true},
		"all certificates":               {func(l *List) { l.Operators.Floor++ }, true},
		"codes":                          {func(l *List) { l.Operators.Codes++ }, true},
	} {
		sorted := func() List {
			l := sample(t)
			l.Revoked = []string{"n-a"}
			slices.SortFunc(l.Peers, func(a, b Peer) int { return bytes.Compare(a.Key[:], b.Key[:]) })
			return l
		}
		l := sorted()
		tc.change(&l)
		slices.SortFunc(l.Peers, func(a, b Peer) int { return bytes.Compare(a.Key[:], b.Key[:]) })
		if got := l.Withdraws(sorted()); got != tc.want {
			t.Errorf("%s: withdraws %v, want %v", name, got, tc.want)
		}
	}
}

func TestSevered(t *testing.T) {
	l := sample(t)
	l.Peers[1].Next = [32]byte{77}
	for _, tc := range []struct {
		name   string
		change func(*List)
		want   []identity.PublicKey
	}{
		{"nothing", func(*List) {}, nil},
		{"a life", func(l *List) { l.Peers[0].Boot = 9 }, nil},
		{"a next key", func(l *List) { l.Peers[0].Next = [32]byte{78} }, nil},
		{"the next key is in use", func(l *List) { l.Peers[1].WireGuard, l.Peers[1].Next = [32]byte{77}, [32]byte{} }, nil},
		{"another key", func(l *List) { l.Peers[1].WireGuard = [32]byte{79} }, []identity.PublicKey{l.Peers[1].Key}},
		{"another key, where there was no next", func(l *List) { l.Peers[0].WireGuard = [32]byte{79} }, []identity.PublicKey{l.Peers[0].Key}},
		{"a member that is gone", func(l *List) { l.Peers = l.Peers[1:] }, nil},
		{"a new member", func(l *List) { l.Peers = append(l.Peers, Peer{Key: key(t, 99).Public(), WireGuard: [32]byte{99}}) }, nil},
	} {
		later := l
		later.Peers = slices.Clone(l.Peers)
		tc.change(&later)
		if got := l.Severed(later); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
	if got := (List{}).Severed(l); got != nil {
		t.Errorf("without a list: %v", got)
	}
}
