package relay

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"halo.internal/model"
)

var (
	sa   = netip.MustParseAddrPort("239.2.3.1:6969")
	chat = netip.MustParseAddrPort("224.10.10.1:17012")
)

// at is the overlay address of member n, and says what of it is listed.
func at(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 42, 1, byte(n)}) }

func member(n int) Member {
	return Member{Node: fmt.Sprintf("n-%d", n), Overlay: at(n), Clients: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 43, byte(n), 0}), 24)}
}

// network is the table of member 1 of n.
func network(n int) *table {
	t := newTable(model.MulticastGroups(), 256)
	var others []Member
	for i := 2; i <= n; i++ {
		others = append(others, member(i))
	}
	t.set(member(1).Clients, others)
	return t
}

func said(by int, to netip.AddrPort, size int) datagram {
	return datagram{ttl: 8, from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 43, byte(by), 77}), 4242), group: to, payload: make([]byte, size)}
}

func sorted(list []netip.Addr) []netip.Addr {
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

func parsed(t *testing.T, b []byte) interest {
	t.Helper()
	_, i, err := parse(b)
	if err != nil || i == nil {
		t.Fatalf("got %v, %v", i, err)
	}
	return *i
}

func TestWhoGetsWhat(t *testing.T) {
	n := network(5)
	now := time.Unix(1000, 0)
	to, ask, reason := n.offer(now, said(1, sa, 100))
	if to != nil || reason != "" || !slices.Equal(sorted(ask), []netip.Addr{at(2), at(3), at(4), at(5)}) {
		t.Fatalf("nothing is known: got %v, asked %v, %s", to, ask, reason)
	}
	hear := func(from int, i interest) (bool, string) { return n.hear(now, at(from), i) }
	hear(2, interest{lifetime: time.Minute, groups: []netip.AddrPort{chat, sa}})
	hear(3, interest{lifetime: time.Minute, groups: []netip.AddrPort{chat}})
	hear(4, interest{lifetime: time.Minute})
	to, ask, _ = n.offer(now.Add(time.Second), said(1, sa, 100))
	if !slices.Equal(to, []netip.Addr{at(2)}) || ask != nil { // 5 was asked a second ago
		t.Errorf("got %v, asked %v", to, ask)
	}
	to, ask, _ = n.offer(now.Add(askFirst), said(1, chat, 100))
	if !slices.Equal(sorted(to), []netip.Addr{at(2), at(3)}) || !slices.Equal(ask, []netip.Addr{at(5)}) {
		t.Errorf("got %v, asked %v", to, ask)
	}
	if _, reason := hear(9, interest{lifetime: time.Minute}); reason != dropForeign {
		t.Errorf("of no member: got %q", reason)
	}
	to, ask, _ = n.offer(now.Add(time.Minute), said(1, sa, 100))
	if to != nil || len(ask) != 4 {
		t.Errorf("all has run out: got %v, asked %v", to, ask)
	}
	hear(2, interest{lifetime: time.Hour, groups: []netip.AddrPort{sa}})
	n.set(member(1).Clients, []Member{member(2), member(6)})
	if to, ask, _ = n.offer(now.Add(2*time.Minute), said(1, sa, 100)); !slices.Equal(to, []netip.Addr{at(2)}) || !slices.Equal(ask, []netip.Addr{at(6)}) {
		t.Errorf("other members: got %v, asked %v", to, ask)
	}
	other := member(2)
	other.Clients = member(7).Clients
	n.set(member(1).Clients, []Member{other})
	if to, _, _ = n.offer(now.Add(2*time.Minute), said(1, sa, 100)); to != nil {
		t.Errorf("a member with other clients: got %v", to)
	}
	g := n.groups(now)
	if len(g) != 2 || g[0].Group != chat || g[0].Joined || g[0].Members != nil {
		t.Errorf("got %+v", g)
	}
}

func TestWhatIsNotTakenUp(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, tc := range map[string]struct {
		d    datagram
		want string
	}{
		"what was emitted here":   {said(2, sa, 1), dropSource},
		"a stranger's":            {datagram{ttl: 1, from: netip.MustParseAddrPort("192.0.2.1:5"), group: sa}, dropSource},
		"a group that is not for": {said(1, netip.MustParseAddrPort("239.9.9.9:6969"), 1), dropUnlisted},
		"another port":            {said(1, netip.MustParseAddrPort("239.2.3.1:6970"), 1), dropUnlisted},
		"the longest":             {said(1, sa, MaxPayload), ""},
		"longer":                  {said(1, sa, MaxPayload+1), dropLong},
	} {
		if to, _, got := network(3).offer(now, tc.d); got != tc.want || to != nil {
			t.Errorf("%s: got %q to %v, want %q", name, got, to, tc.want)
		}
	}
	alone := newTable(model.MulticastGroups(), 256)
	if _, _, got := alone.offer(now, said(1, sa, 1)); got != dropSource {
		t.Errorf("without clients of its own: got %q", got)
	}
}

func TestBudgets(t *testing.T) {
	n := network(11)
	now := time.Unix(1000, 0)
	for i := 2; i <= 11; i++ {
		n.hear(now, at(i), interest{lifetime: time.Hour, groups: []netip.AddrPort{sa}})
	}
	sent := map[string]int{}
	var octets int
	for i := range 60 * 100 { // a client that never stops, for a minute
		to, _, reason := n.offer(now.Add(time.Duration(i)*10*time.Millisecond), said(1, sa, 500))
		sent[reason]++
		if reason == "" {
			octets += len(to) * (500 + overhead)
		}
		if len(to) != 0 && len(to) != 10 && reason == "" {
			t.Fatalf("got %d copies, want all or none", len(to))
		}
	}
	if most := 256*1000/8*60 + 2*256*1000/8 + 10*(500+overhead); octets > most || octets < most/2 {
		t.Errorf("%d octets in a minute, want at most %d (%v)", octets, most, sent)
	}
	if most := sourceBurst + 60*sourceRate; sent[""]+sent[dropBudget] > most+1 || sent[dropFast] == 0 {
		t.Errorf("of one source: %v, want at most %d", sent, most)
	}
	if to, _, reason := n.offer(now.Add(2*time.Minute), said(1, sa, 500)); len(to) != 10 || reason != "" {
		t.Errorf("a minute later: %d copies, %q", len(to), reason)
	}
	got := 0
	n.joined(now, []netip.Addr{sa.Addr()})
	for range 1000 {
		if _, reason := n.take(now, at(2), said(2, sa, 1)); reason == "" {
			got++
		}
	}
	if got != memberBurst {
		t.Errorf("of one member at once: %d, want %d", got, memberBurst)
	}
	if _, reason := n.take(now, at(3), said(3, sa, 1)); reason != "" {
		t.Errorf("of another: %s", reason)
	}
}

func TestWhatIsEmitted(t *testing.T) {
	now := time.Unix(1000, 0)
	n := network(3)
	n.joined(now, []netip.Addr{sa.Addr()})
	from := func(a string) datagram {
		d := said(2, sa, 1)
		d.from = netip.AddrPortFrom(netip.MustParseAddr(a), 5)
		return d
	}
	for name, tc := range map[string]struct {
		by     int
		d      datagram
		want   string
		answer bool
	}{
		"a client's of its":       {2, said(2, sa, 1), "", false},
		"a client's of another":   {2, said(3, sa, 1), dropForged, false},
		"a client's of ours":      {2, said(1, sa, 1), dropForged, false},
		"its network":             {2, from("10.43.2.0"), dropForged, false},
		"a broadcast":             {2, from("10.43.2.255"), dropForged, false},
		"of no member":            {9, said(9, sa, 1), dropForeign, false},
		"what nobody joined":      {2, said(2, chat, 1), dropUnwanted, true},
		"what is not listed":      {2, said(2, netip.MustParseAddrPort("239.9.9.9:1"), 1), dropUnlisted, false},
		"another port of a group": {2, said(2, netip.MustParseAddrPort("239.2.3.1:1"), 1), dropUnlisted, false},
	} {
		if answer, got := n.take(now, at(tc.by), tc.d); got != tc.want || answer != tc.answer {
			t.Errorf("%s: got %q, answer %t; want %q, %t", name, got, answer, tc.want, tc.answer)
		}
	}
	if answer, _ := n.take(now.Add(answerEvery/2), at(2), said(2, chat, 1)); answer {
		t.Error("it was told a second ago")
	}
}

func TestTelling(t *testing.T) {
	now := time.Unix(1000, 0)
	n := network(4)
	if _, to := n.due(now); to != nil {
		t.Fatal("a network without clients says something")
	}
	n.joined(now, []netip.Addr{netip.MustParseAddr("239.9.9.9"), sa.Addr()})
	n.joined(now, []netip.Addr{sa.Addr()}) // no other
	var when []time.Duration
	var last interest
	run := func(until time.Duration) {
		when = nil
		for !n.tellAt.IsZero() && n.tellAt.Before(now.Add(until)) {
			due := n.tellAt
			msg, to := n.due(due)
			if len(to) != 3 {
				t.Fatalf("told to %v", to)
			}
			last = parsed(t, msg)
			when = append(when, due.Sub(now))
		}
	}
	run(3 * time.Minute)
	if want := []time.Duration{0, 2 * time.Second, 8 * time.Second, 68 * time.Second, 128 * time.Second}; !slices.Equal(when, want) {
		t.Errorf("told after %v, want %v", when, want)
	}
	if !slices.Equal(last.groups, []netip.AddrPort{sa}) || last.ask || last.lifetime < 3*renewMin {
		t.Errorf("told %+v", last)
	}
	now = now.Add(10 * time.Minute)
	n.joined(now, nil)
	run(time.Hour)
	if want := []time.Duration{0, 2 * time.Second, 8 * time.Second}; !slices.Equal(when, want) || last.groups != nil {
		t.Errorf("nobody listens any more: told after %v: %+v", when, last)
	}

	// A client that joins and leaves all the time.
	now = now.Add(10 * time.Minute)
	begun, groups := 0, []netip.Addr{sa.Addr()}
	for i := range 3600 {
		at := now.Add(time.Duration(i) * time.Second)
		was := n.changes.spent
		n.joined(at, groups[:i%2])
		if _, to := n.due(at); to != nil && n.told == 1 {
			begun++
		}
		if n.changes.spent > was+1 {
			t.Fatal("a change cost more than one")
		}
	}
	if begun > changeBurst+int(time.Hour/changeEvery)+1 {
		t.Errorf("changes were told %d times in an hour", begun)
	}
}

func TestAsking(t *testing.T) {
	now := time.Unix(1000, 0)
	n := network(3)
	n.hear(now, at(2), interest{lifetime: time.Hour})
	n.joined(now, []netip.Addr{sa.Addr()})
	if msg, _ := n.due(now); !parsed(t, msg).ask {
		t.Error("who begins to listen does not ask, while there is somebody unknown")
	}
	if answer, _ := n.hear(now, at(3), interest{ask: true, lifetime: time.Minute}); !answer {
		t.Error("a question got no answer")
	}
	if answer, _ := n.hear(now.Add(time.Second), at(3), interest{ask: true, lifetime: time.Minute}); answer {
		t.Error("a question at once after another got an answer")
	}
	// Somebody who never answers.
	n = network(2)
	asked := 0
	for i := range 3600 {
		_, ask, _ := n.offer(now.Add(time.Duration(i)*time.Second), said(1, sa, 1))
		asked += len(ask)
	}
	if asked < 10 || asked > 64 {
		t.Errorf("asked %d times in an hour", asked)
	}
}

// TestTheAbsent are left alone, and told what is when they are back.
func TestTheAbsent(t *testing.T) {
	now := time.Unix(100000, 0)
	n := network(3)
	away := []Member{member(2), member(3)}
	away[1].Away = true
	n.set(member(1).Clients, away)
	for _, i := range []int{2, 3} {
		n.hear(now, at(i), interest{lifetime: time.Hour, groups: []netip.AddrPort{sa}})
	}
	n.joined(now, []netip.Addr{sa.Addr()})
	if _, to := n.due(now); !slices.Equal(to, []netip.Addr{at(2)}) {
		t.Errorf("told %v", to)
	}
	to, ask, _ := n.offer(now, said(1, sa, 1))
	if !slices.Equal(to, []netip.Addr{at(2)}) || ask != nil {
		t.Errorf("sent to %v, asked %v", to, ask)
	}
	if to, ask, _ = n.offer(now.Add(2*time.Hour), said(1, sa, 1)); to != nil || !slices.Equal(ask, []netip.Addr{at(2)}) {
		t.Errorf("two hours later: sent to %v, asked %v", to, ask)
	}
	n.set(member(1).Clients, []Member{member(2), member(3)})
	if !n.greets() {
		t.Fatal("who is back is not told")
	}
	msg, to := n.due(now.Add(time.Second)) // before the next repeat
	if !slices.Equal(to, []netip.Addr{at(3)}) || !slices.Equal(parsed(t, msg).groups, []netip.AddrPort{sa}) || n.greets() {
		t.Errorf("told %v", to)
	}
	if to, _, _ = n.offer(now.Add(time.Minute), said(1, sa, 1)); !slices.Equal(sorted(to), []netip.Addr{at(2), at(3)}) {
		t.Errorf("sent to %v", to)
	}
}

// TestTheDead are not sent to.
func TestTheDead(t *testing.T) {
	now := time.Unix(100000, 0)
	n := network(4)
	for _, i := range []int{2, 3, 4} {
		n.hear(now, at(i), interest{lifetime: time.Hour, groups: []netip.AddrPort{sa}})
	}
	if n.unproven() {
		t.Error("handshakes are of interest before anything was sent")
	}
	shaken := map[string]time.Time{"n-2": now.Add(-time.Hour), "n-3": now, "n-4": now.AddDate(1, 0, 0)} // the clock was set back since
	n.offer(now, said(1, sa, 1))
	n.vouch(now.Add(15*time.Second), shaken)
	if to, _, _ := n.offer(now.Add(16*time.Second), said(1, sa, 1)); len(to) != 3 {
		t.Errorf("before it is certain: got %v", to)
	}
	n.vouch(now.Add(45*time.Second), shaken)
	to, ask, _ := n.offer(now.Add(46*time.Second), said(1, sa, 1))
	if !slices.Equal(to, []netip.Addr{at(3)}) || ask != nil {
		t.Errorf("got %v, asked %v", to, ask)
	}
	if _, ask, _ = n.offer(now.Add(2*time.Minute), said(1, sa, 1)); !slices.Equal(sorted(ask), []netip.Addr{at(2), at(4)}) {
		t.Errorf("two minutes later: asked %v", ask)
	}
	n.hear(now.Add(3*time.Minute), at(2), interest{lifetime: time.Hour, groups: []netip.AddrPort{sa}})
	if to, _, _ = n.offer(now.Add(3*time.Minute), said(1, sa, 1)); len(to) != 2 {
		t.Errorf("when it is back: got %v", to)
	}
}

// TestAirtime of what is said of interest, all members listening, is under one per
// cent of a 1 MHz channel for as many as one can have.
func TestAirtime(t *testing.T) {
	for n := 2; n <= 250; n++ {
		every := renewal(n)
		share := float64(n*(n-1)) * messageAir.Seconds() / every.Seconds()
		if share > 0.0051 && every < renewMax || every < renewMin || every > renewMax {
			t.Errorf("%d members: %.2f %% each %s", n, 100*share, every)
		}
		if life := 3*every + renewMin/2; life > maxLifetime {
			t.Errorf("%d members: it holds %s, longer than may be said", n, life)
		}
	}
	if got := renewal(10); got != 288*time.Second {
		t.Errorf("ten members: got %s", got)
	}
}
