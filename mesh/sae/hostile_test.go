package sae

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"halo.internal/mesh/fakeair"
	"halo.internal/model/dot11"
)

// forge is the frame of a body under an address.
func forge(from, to dot11.MAC, body []byte) []byte {
	return append(dot11.AppendManagement(nil, dot11.Header{Subtype: dot11.Authentication, To: to, From: from}), body...)
}

// forgedCommit is a Commit with valid values of a password nobody has.
func forgedCommit(t testing.TB, n byte) commitFrame {
	t.Helper()
	g, err := elementFor(mustElement(t), address(1), address(2))
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := commit(g, seeded(n))
	if err != nil {
		t.Fatal(err)
	}
	return commitFrame{values: v}
}

// record runs an exchange and returns what each side sent.
func record(t testing.TB, air *fakeair.Air, a, b *station) (sent []fakeair.Sent) {
	t.Helper()
	air.Tap = func(_ time.Time, s fakeair.Sent) { sent = append(sent, s) }
	begin(t, air, a, b)
	air.Run(100 * time.Millisecond)
	agree(t, a, b)
	air.Tap = nil
	return sent
}

func TestForgedCommitDoesNotTakeTheKey(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	record(t, air, a, b)
	old, _ := a.Newest(b.mac)
	a.Hold(b.mac, old)
	for n := range byte(50) {
		f := forgedCommit(t, n)
		air.Inject(a.mac, forge(b.mac, a.mac, f.append()))
		air.Run(200 * time.Millisecond)
		if _, ok := a.PMK(b.mac, old); !ok || a.State(b.mac) != Authenticated {
			t.Fatalf("after %d forged Commits the key is gone", n+1)
		}
	}
	air.Run(time.Minute)
	// The answers made the true peer answer: both may hold a newer key, and agree.
	agree(t, a, b)
	for _, s := range []*station{a, b} {
		if s.last(Failed) != nil {
			t.Errorf("a forgery was reported as a failure of the peer: %+v", s.last(Failed))
		}
	}
}

func TestForgedCommitBeforeTheRealOne(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	for n := range byte(3) {
		f := forgedCommit(t, n)
		air.Inject(a.mac, forge(b.mac, a.mac, f.append()))
	}
	begin(t, air, b, a)
	if !air.Until(100*time.Millisecond, func() bool { return a.accepted() && b.accepted() }) {
		t.Fatalf("the real peer was kept out: %+v %+v", a.events, b.events)
	}
	agree(t, a, b)
}

func TestForgedConfirmAndRefusalsEndNothing(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	air.Tap = func(_ time.Time, s fakeair.Sent) {
		if s.From != b.mac {
			return
		}
		for _, body := range [][]byte{
			confirmFrame{counter: 7}.append(),
			demand{status: dot11.UnsupportedGroup, group: Group}.appendFor(HashToElement),
			demand{status: dot11.UnknownPasswordIdentifier, group: Group}.appendFor(HashToElement),
			demand{status: dot11.AntiCloggingTokenRequired, group: Group, token: []byte("x")}.appendFor(HashToElement),
			start(transactionConfirm, dot11.UnspecifiedFailure),
		} {
			a.Handle(air.Now, forge(b.mac, a.mac, body))
		}
	}
	begin(t, air, a, b)
	if !air.Until(time.Second, func() bool { return a.accepted() && b.accepted() }) {
		t.Fatal("a forged refusal ended the exchange")
	}
	agree(t, a, b)
}

func TestReflectionsAreDropped(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	air.Tap = func(_ time.Time, s fakeair.Sent) {
		// Everything that a sends comes back as if from the peer.
		b := bytes.Clone(s.Frame.Bytes)
		copy(b[4:], a.mac[:])
		copy(b[10:], s.Frame.To[:])
		a.Handle(air.Now, b)
		copy(b[10:], a.mac[:])
		a.Handle(air.Now, b)
	}
	if err := a.Start(air.Now, address(2)); err != nil {
		t.Fatal(err)
	}
	air.Run(20 * time.Second)
	if a.accepted() || a.State(address(2)) > Committed {
		t.Fatal("a station authenticated itself")
	}
	if a.Stats().Reflected == 0 {
		t.Error("reflections were not counted")
	}
}

func TestReplaysChangeNothing(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	sent := record(t, air, a, b)
	first, _ := a.Newest(b.mac)
	begin(t, air, a, b) // a second exchange, so that the first is the old one
	air.Run(time.Second)
	agree(t, a, b)
	second, _ := a.Newest(b.mac)
	if first == second {
		t.Fatal("two exchanges gave one key")
	}
	before, frames := len(a.events)+len(b.events), air.Sent
	for range 5 {
		for _, s := range sent {
			air.Inject(s.Frame.To, s.Frame.Bytes)
		}
	}
	air.Run(30 * time.Second)
	if len(a.events)+len(b.events) != before || air.Sent != frames {
		t.Errorf("replays caused events or %d frames: %+v %+v", air.Sent-frames, a.events, b.events)
	}
	if id, _ := a.Newest(b.mac); id != second {
		t.Error("a replay replaced the key")
	}
	// A third exchange pushes the first out of memory: its replay may be answered,
	// and comes to nothing.
	begin(t, air, b, a)
	air.Run(time.Second)
	agree(t, a, b)
	for _, s := range sent {
		air.Inject(s.Frame.To, s.Frame.Bytes)
	}
	air.Run(30 * time.Second)
	agree(t, a, b)
	if a.last(Failed) != nil || b.last(Failed) != nil {
		t.Error("a replay was reported as a failure of the peer")
	}
}

func TestConfirmCountersAreNotReplayed(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	record(t, air, a, b)
	sa := a.peers[b.mac].sas[0]
	con := func(counter uint16) []byte {
		return forge(b.mac, a.mac, confirmFrame{counter, confirm(sa.keys.kck[:], counter, &sa.peer, &sa.own)}.append())
	}
	for _, c := range []struct {
		counter uint16
		answers int
	}{{5, 1}, {5, 0}, {4, 0}, {0xffff, 0}, {6, 1}} {
		a.Handle(air.Now, con(c.counter))
		if frames, _ := a.Take(); len(frames) != c.answers {
			t.Errorf("send-confirm %d: expected %d answers, got %d", c.counter, c.answers, len(frames))
		}
	}
	for n := range uint16(100) {
		a.Handle(air.Now, con(100+n))
	}
	if frames, _ := a.Take(); len(frames) > a.c.Limits.Sync {
		t.Errorf("expected at most %d answers, got %d", a.c.Limits.Sync, len(frames))
	}
	air.Run(time.Minute)
	if sa.keys.kck != [kckSize]byte{} {
		t.Error("the KCK outlives its use")
	}
	a.Handle(air.Now, con(500))
	if frames, _ := a.Take(); len(frames) != 0 {
		t.Error("a Confirm under a wiped key was answered")
	}
}

// TestFlood has a rogue send Commits from ever new addresses and from the
// addresses of members, while real ones come in.
func TestFlood(t *testing.T) {
	methods(t, func(t *testing.T, m func(*Config)) {
		air := fakeair.New(1)
		a := join(t, air, 1, m)
		forged := forgedCommit(t, 1)
		forged.method = a.c.Method
		body := forged.append()
		for n := range 2000 {
			a.Handle(air.Now, forge(address(1000+n), a.mac, body))
			air.Now = air.Now.Add(time.Millisecond)
		}
		frames, _ := a.Take()
		if max := 600 + 10*8; len(frames) > max { // 2 s of refusals, and a few answers
			t.Errorf("%d frames sent for 2000 forged, expected at most %d", len(frames), max)
		}
		if len(a.peers) > a.c.Limits.Pending {
			t.Errorf("%d exchanges kept, expected at most %d", len(a.peers), a.c.Limits.Pending)
		}
		if s := a.Stats(); s.TokensAsked < 1900 {
			t.Errorf("expected tokens to be asked for, got %+v", s)
		}
		// One that a wants is let in at once, in the middle of it; so is one that wants
		// a, once it has its token.
		b, c := join(t, air, 2, m), join(t, air, 3, m)
		begin(t, air, a, b)
		begin(t, air, c, a)
		n, dice := 0, rand.New(seeded(5))
		since := air.Now
		in := func(s *station) bool { return s.accepted() && a.State(s.mac) == Authenticated }
		for !in(b) || !in(c) {
			air.Inject(a.mac, forge(address(5000+n), a.mac, body))
			air.Run(time.Duration(dice.IntN(2_000_000)))
			if n++; n > 20_000 {
				t.Fatalf("kept out by the flood: %+v %+v", b.events, c.events)
			}
		}
		t.Logf("both in after %v of flood", air.Now.Sub(since))
		agree(t, a, b)
		agree(t, a, c)
		air.Run(time.Minute)
		if len(a.peers) != 2 {
			t.Errorf("expected the two members to remain, got %d", len(a.peers))
		}
	})
}

// TestFloodWithTokens is by a rogue that hears the tokens it is given.
func TestFloodWithTokens(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	forged := forgedCommit(t, 1)
	computed := 0
	for n := range 2000 {
		from := address(1000 + n)
		forged.token = nil
		a.Handle(air.Now, forge(from, a.mac, forged.append()))
		frames, _ := a.Take()
		for _, f := range frames {
			if d, ok := mustParse(t, f.Bytes).(demand); ok {
				forged.token, _ = d.tokenFor(HashToElement)
				a.Handle(air.Now, forge(from, a.mac, forged.append()))
				answers, _ := a.Take()
				computed += len(answers) / 2
			}
		}
		air.Now = air.Now.Add(time.Millisecond)
		if len(a.peers) > a.c.Limits.Pending {
			t.Fatalf("%d exchanges kept, expected at most %d", len(a.peers), a.c.Limits.Pending)
		}
	}
	if computed == 0 || computed > 80 {
		t.Errorf("%d exchanges computed in 2 s, expected some, and at most 80", computed)
	}
}

func TestTokens(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	k := tokens{random: seeded(1)}
	v := forgedCommit(t, 1).values
	other := forgedCommit(t, 2).values
	issued, err := k.issue(now, address(1), &v)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from  dot11.MAC
		v     *values
		after time.Duration
		want  bool
	}{
		"at once":        {address(1), &v, 0, true},
		"late":           {address(1), &v, tokenLife + time.Second, true},
		"too late":       {address(1), &v, 2*tokenLife + time.Second, false},
		"other sender":   {address(2), &v, 0, false},
		"another Commit": {address(1), &other, 0, false},
	} {
		copied := k
		if got := copied.valid(now.Add(c.after), c.from, c.v, issued); got != c.want {
			t.Errorf("%s: expected %v, got %v", name, c.want, got)
		}
	}
	if k.valid(now, address(1), &v, nil) || k.valid(now, address(1), &v, token(make([]byte, 32), address(1), &v)) {
		t.Error("no token, or one under a key of zeros, is valid")
	}
}

func TestBadValuesAreRefused(t *testing.T) {
	good := forgedCommit(t, 1).values
	with := func(change func(*values)) values { v := good; change(&v); return v }
	for name, v := range map[string]values{
		"scalar 0":        with(func(v *values) { clear(v.scalar[:]) }),
		"scalar 1":        with(func(v *values) { clear(v.scalar[:]); v.scalar[31] = 1 }),
		"scalar q":        with(func(v *values) { copy(v.scalar[:], curve.qBytes) }),
		"not on curve":    with(func(v *values) { v.element[63] ^= 1 }),
		"zero element":    with(func(v *values) { clear(v.element[:]) }),
		"coordinate of p": with(func(v *values) { copy(v.element[:], curve.pBytes) }),
	} {
		if v.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// s'*PWE + E' may be the identity for who knows PWE: refused when deriving.
	pwe, err := elementFor(mustElement(t), address(1), address(2))
	if err != nil {
		t.Fatal(err)
	}
	own, s, err := commit(pwe, seeded(1))
	if err != nil {
		t.Fatal(err)
	}
	evil, _, err := commit(pwe, bytes.NewReader(append(append(make([]byte, 31), 2), append(make([]byte, 31), 3)...)))
	if err != nil {
		t.Fatal(err)
	}
	evil.scalar = [scalarSize]byte{31: 3}
	if _, err := derive(&s, &own, &evil, nil); err == nil {
		t.Error("the identity was taken for a shared element")
	}
}

// TestRejectedGroupsAreInTheKey: who changes the list that a peer sends changes
// the key.
func TestRejectedGroupsAreInTheKey(t *testing.T) {
	pwe, err := elementFor(mustElement(t), address(1), address(2))
	if err != nil {
		t.Fatal(err)
	}
	a, secretA, _ := commit(pwe, seeded(1))
	b, secretB, _ := commit(pwe, seeded(2))
	groups := []byte{20, 0, 21, 0}
	x, err := derive(&secretA, &a, &b, groupSalt(address(1), address(2), nil, groups))
	if err != nil {
		t.Fatal(err)
	}
	y, err := derive(&secretB, &b, &a, groupSalt(address(2), address(1), groups, nil))
	if err != nil {
		t.Fatal(err)
	}
	z, err := derive(&secretB, &b, &a, groupSalt(address(2), address(1), groups[:2], nil))
	if err != nil {
		t.Fatal(err)
	}
	if x != y || x.pmk == z.pmk || x.pmkid != z.pmkid {
		t.Error("the rejected groups are not in the key as they should be")
	}
	if got := groupSalt(address(1), address(2), []byte{1}, []byte{2}); !bytes.Equal(got, []byte{2, 1}) {
		t.Errorf("expected the greater address first, got %v", got)
	}
}

// TestForgeriesDoNotHoldUpTheWanted keeps forging Commits of a peer that is
// wanted and was out of reach.
func TestForgeriesDoNotHoldUpTheWanted(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	if err := a.Start(air.Now, address(2)); err != nil {
		t.Fatal(err)
	}
	forged := func(n int) {
		f := forgedCommit(t, byte(n))
		air.Inject(a.mac, forge(address(2), a.mac, f.append()))
		air.Run(300 * time.Millisecond)
	}
	for n := range 100 {
		forged(n)
	}
	b := join(t, air, 2, nil)
	for n := range 100 {
		forged(n)
		if a.accepted() && b.accepted() {
			t.Logf("in after %d forgeries", n+1)
			return
		}
	}
	t.Fatalf("kept out: %+v", a.events)
}
