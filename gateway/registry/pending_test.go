package registry

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/identity"
	"halo.internal/model/apitype"
)

// fill has as many nodes ask as may wait, from all over.
func fill(t *testing.T, f *fixture) {
	t.Helper()
	for n := range uint32(maxRegistrations) {
		node := identity.New()
		_, err := f.joinFrom(t, from(n), node, f.request(node, ""))
		wantType(t, err, apitype.ProblemJoinPending)
	}
}

func from(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0xc0000200+n)))
}

func TestStrangersCannotFillTheRegistrations(t *testing.T) {
	f := newFixture(t)
	// For weeks nobody tells this gateway the time.
	f.clock.Follow(clock.Span{Aged: f.now, Ahead: f.now}, func() bool { return false }, nil)
	fill(t, f)
	before := len(f.kinds(t))
	for n := range uint32(20) {
		node := identity.New()
		_, err := f.joinFrom(t, from(1000+n), node, f.request(node, ""))
		wantType(t, err, apitype.ProblemRateLimited)
	}
	if since := f.kinds(t)[before:]; !slices.Equal(since, []string{"join.refused"}) {
		t.Errorf("events since: %v, want one for the whole flood", since)
	}
	// Who waits already may go on to ask.
	list, err := f.Registrations(t.Context(), "", 500)
	if err != nil || len(list.Items) != maxRegistrations {
		t.Fatalf("%d wait, %v", len(list.Items), err)
	}
	// Those that have gone make room by themselves.
	f.now, f.mono = f.now.Add(pendingLife+time.Hour), f.mono.Add(time.Hour)
	node := identity.New()
	_, err = f.join(t, node, f.request(node, ""))
	wantType(t, err, apitype.ProblemJoinPending)
	if list, err := f.Registrations(t.Context(), "", 500); err != nil || len(list.Items) != 1 {
		t.Errorf("%d wait a week later, %v; want the new one", len(list.Items), err)
	}
}

func TestOneAddressCannotFillTheRegistrations(t *testing.T) {
	f := newFixture(t)
	own := identity.Underlay(f.key.Public(), f.key.Public())
	for _, tc := range []struct {
		name string
		at   func(n uint32) netip.Addr
		most uint32
	}{
		{"an IPv4 address", func(uint32) netip.Addr { return from(7) }, maxFromOne},
		{"an IPv6 network", func(n uint32) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(n >> 8), 15: byte(n)})
		}, maxFromOne},
		{"an underlay address", func(uint32) netip.Addr { return own.Next() }, maxFromOne},
		{"nodes on the underlay", func(n uint32) netip.Addr {
			a := own.As16()
			a[14], a[15] = byte(n>>8), byte(n)
			return netip.AddrFrom16(a)
		}, 3 * maxFromOne},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var waiting uint32
			for n := range uint32(3 * maxFromOne) {
				node := identity.New()
				_, err := f.joinFrom(t, tc.at(n), node, f.request(node, ""))
				if n < tc.most {
					wantType(t, err, apitype.ProblemJoinPending)
					waiting++
				} else {
					wantType(t, err, apitype.ProblemRateLimited)
				}
			}
			if waiting != tc.most {
				t.Errorf("%d wait, want %d", waiting, tc.most)
			}
		})
	}
}

// A verdict stays for as long as the node asks, and its repeated tries are not
// each written to the card.
func TestTriesAndVerdictsAge(t *testing.T) {
	f := newFixture(t)
	node := identity.New()
	ask := func(typ string) (lastTry time.Time) {
		t.Helper()
		_, err := f.join(t, node, f.request(node, ""))
		wantType(t, err, typ)
		list, err := f.Registrations(t.Context(), "", 10)
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("got %+v, %v", list.Items, err)
		}
		return list.Items[0].LastTry
	}
	first := ask(apitype.ProblemJoinPending)
	f.now = f.now.Add(5 * time.Minute)
	if again := ask(apitype.ProblemJoinPending); !again.Equal(first) {
		t.Error("a try after five minutes was written down")
	}
	f.now = f.now.Add(tryEvery)
	if again := ask(apitype.ProblemJoinPending); again.Equal(first) {
		t.Error("a try after twenty minutes was not written down")
	}
	if err := f.Reject(t.Context(), node.ID()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f.now, f.mono = f.now.Add(rejectedLife-time.Hour), f.mono.Add(time.Hour)
		ask(apitype.ProblemJoinRejected)
	}
	f.now, f.mono = f.now.Add(rejectedLife+time.Hour), f.mono.Add(time.Hour)
	if list, err := f.Registrations(t.Context(), "", 10); err != nil || len(list.Items) != 0 {
		t.Errorf("long after its last try: %+v, %v", list.Items, err)
	}
}
