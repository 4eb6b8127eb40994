package peering

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"halo.internal/mesh/fakeair"
	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// record runs a peering and returns what each side sent.
func record(t testing.TB, air *fakeair.Air, a, b *station) (sent []fakeair.Sent) {
	t.Helper()
	air.Tap = func(_ time.Time, s fakeair.Sent) { sent = append(sent, s) }
	connect(t, air, a, b)
	air.Run(200 * time.Millisecond)
	agree(t, a, b)
	air.Tap = nil
	return sent
}

// TestForgeriesChangeNothing plays every frame of a peering, one octet changed,
// in every state.
func TestForgeriesChangeNothing(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	share(t, air, a, b, 1)
	var at []int
	air.Tap = func(_ time.Time, s fakeair.Sent) {
		to := map[dot11.MAC]*station{a.mac: a, b.mac: b}[s.Frame.To]
		before, peer := to.State(s.From), to.peers[s.From]
		n := len(to.Engine.frames)
		for i := range s.Frame.Bytes {
			if i < 4 || i >= 16 && i < dot11.HeaderSize {
				continue // the radio's: duration, third address, sequence number
			}
			f := bytes.Clone(s.Frame.Bytes)
			f[i] ^= 1 << (i % 8)
			to.Handle(air.Now, f)
			if to.State(s.From) != before || to.peers[s.From] != peer || len(to.Engine.frames) != n {
				t.Fatalf("octet %d of %x changed: %v became %v", i, f, before, to.State(s.From))
			}
		}
		at = append(at, int(before))
	}
	connect(t, air, a, b)
	air.Run(200 * time.Millisecond)
	agree(t, a, b)
	a.Disconnect(air.Now, b.mac, dot11.MeshPeeringCancelled)
	air.Kick()
	air.Run(200 * time.Millisecond)
	if len(at) < 6 {
		t.Errorf("expected Opens, Confirms and Closes, got %d frames", len(at))
	}
	if s := b.Stats(); s.Unverified < 100 {
		t.Errorf("%+v", s)
	}
	if n := b.count(Unverified); n == 0 || n > 30 {
		t.Errorf("expected forgeries to be reported, within bounds; got %d events", n)
	}
}

// TestMorseForgeriesCostLittle plays every frame of a peering, one octet changed,
// before the frame itself, after it, and when the link stands. Most octets are not
// authenticated there. None ends a link. None delays one that is being made but by
// its link ID, which goes into the key: that costs the attempt, as a lost frame may,
// and not the longest pause.
func TestMorseForgeriesCostLittle(t *testing.T) {
	before := func(s *story, f dot11.Frame, forged []byte) {
		s.air.Inject(f.To, forged)
		s.air.Inject(f.To, f.Bytes)
	}
	after := func(s *story, f dot11.Frame, forged []byte) {
		s.air.Inject(f.To, f.Bytes)
		s.air.Inject(f.To, forged)
	}
	standing := func(s *story, f dot11.Frame, forged []byte) {
		s.air.Inject(f.To, f.Bytes)
		s.air.Run(time.Second)
		agree(s.t, s.at[0], s.at[1])
		s.air.Inject(f.To, forged)
	}
	for name, play := range map[string]func(*story, dot11.Frame, []byte){"before": before, "after": after, "standing": standing} {
		for _, mfp := range []MFP{MFPRequired, MFPOff} {
			tried := 0
			for which := range 4 { // two Opens, two Confirms
				for i := 4; ; i++ {
					if i >= 16 && i < dot11.HeaderSize {
						continue // third address and sequence number, the radio's
					}
					s := newStory(t, 1, func(c *Config) { c.Morse, c.Timing, c.MFP = true, HaLow, mfp })
					var f dot11.Frame
					s.air.Cut = func(dot11.MAC, dot11.MAC) bool { return len(s.heard) == which+1 }
					s.connect(0)
					if !s.air.Until(time.Second, func() bool { return len(s.heard) > which }) {
						t.Fatal("no such frame")
					}
					s.air.Cut = nil
					if f = s.heard[which].Frame; i >= len(f.Bytes) {
						break
					}
					forged := bytes.Clone(f.Bytes)
					forged[i] ^= 1 << (i % 8)
					play(s, f, forged)
					limit := time.Second
					if linkID(f.Bytes, i) {
						limit = HaLow.PauseMax - time.Second
					}
					if !s.air.Until(limit, func() bool { return linked(s.at[0], s.at[1]) }) {
						t.Errorf("%s, frame %d, octet %d: no link, %v and %v\n%v\n%v", name, which, i, s.at[0].State(s.at[1].mac), s.at[1].State(s.at[0].mac), s.at[0].told(), s.at[1].told())
						continue
					}
					s.air.Run(10 * time.Minute)
					agree(t, s.at[0], s.at[1])
					for _, w := range s.at {
						if !linkID(f.Bytes, i) && w.count(Closed)+w.count(Failed) > 0 {
							t.Errorf("%s, frame %d, octet %d: %v", name, which, i, w.told())
						}
					}
					tried++
				}
			}
			if tried < 600 {
				t.Errorf("%d forgeries", tried)
			}
		}
	}
}

// linkID tells whether an octet is of a frame's link IDs.
func linkID(frame []byte, i int) bool {
	at := bytes.Index(frame, []byte{1, 0}) // protocol
	for frame[at-2] != byte(dot11.MeshPeeringManagement) {
		at += 1 + bytes.Index(frame[at+1:], []byte{1, 0})
	}
	n := 2
	if frame[at-1] > 20 {
		n = 4
	}
	return i >= at+2 && i < at+2+n
}

// TestMorseDisagreementsAreNamed although nothing proves them: when the attempt has
// come to nothing.
func TestMorseDisagreementsAreNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		reason dot11.Reason
	}{
		"mesh ID": {func(c *Config) { c.MeshID = []byte("other") }, dot11.MeshInconsistentParameters},
		"MFP":     {func(c *Config) { c.MFP = MFPOff }, dot11.MeshInvalidSecurityCapacity},
	} {
		air := fakeair.New(1)
		morse := func(c *Config) { c.Morse, c.Timing = true, HaLow }
		a, b := join(t, air, 1, morse), join(t, air, 2, func(c *Config) { morse(c); tc.change(c) })
		share(t, air, a, b, 1)
		connect(t, air, a, b)
		connect(t, air, b, a)
		air.Run(25 * time.Second) // one attempt
		for _, s := range []*station{a, b} {
			if ev := s.last(Failed); ev == nil || ev.Reason != tc.reason || ev.Err == nil || ev.Retry != HaLow.Pause || s.last(Established) != nil {
				t.Errorf("%s: got %+v", name, ev)
			}
		}
	}
}

func TestReplaysChangeNothing(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	share(t, air, a, b, 1)
	sent := record(t, air, a, b)
	air.Tap = func(_ time.Time, s fakeair.Sent) { sent = append(sent, s) }
	a.Disconnect(air.Now, b.mac, dot11.MeshPeeringCancelled)
	air.Kick()
	air.Run(time.Second)
	connect(t, air, b, a)
	air.Run(time.Second)
	agree(t, a, b)
	air.Tap = nil
	before := [2]int{a.count(Established) + a.count(Closed), b.count(Established) + b.count(Closed)}
	frames := air.Sent
	for range 10 {
		for _, s := range sent {
			air.Inject(s.Frame.To, s.Frame.Bytes)
		}
	}
	air.Run(time.Minute)
	agree(t, a, b)
	if got := [2]int{a.count(Established) + a.count(Closed), b.count(Established) + b.count(Closed)}; got != before {
		t.Errorf("replays changed links: %v became %v", before, got)
	}
	if n := air.Sent - frames; n > 40 {
		t.Errorf("%d frames sent in answer to replays", n)
	}
	if s := a.Stats(); s.Replayed == 0 || s.Mismatched == 0 {
		t.Errorf("%+v", s)
	}
	if a.count(Mismatch) == 0 {
		t.Error("frames of another instance were dropped in silence")
	}
}

// TestRecordedFramesKeepNoLink: a peer that lost its power, whose frames somebody goes on
// repeating, is found to be gone. One that is there and silent keeps its link, as long as
// nothing else ever came.
func TestRecordedFramesKeepNoLink(t *testing.T) {
	for _, heard := range []bool{true, false} {
		air := fakeair.New(1)
		a, b := join(t, air, 1, nil), join(t, air, 2, nil)
		share(t, air, a, b, 1)
		var sent [][]byte
		air.Tap = func(_ time.Time, s fakeair.Sent) {
			if s.Frame.To == a.mac {
				sent = append(sent, s.Frame.Bytes)
			}
		}
		connect(t, air, a, b)
		for range 60 { // two checks and more
			air.Run(2 * time.Second)
			if heard {
				a.Heard(air.Now, b.mac)
				b.Heard(air.Now, a.mac)
			}
		}
		agree(t, a, b)
		if heard {
			air.Cut = func(from, _ dot11.MAC) bool { return from == b.mac }
		}
		air.Tap = nil
		began := air.Now
		for a.State(b.mac) == Estab && air.Now.Sub(began) < time.Hour {
			for _, f := range sent {
				air.Inject(a.mac, f)
			}
			air.Run(5 * time.Second)
		}
		took := air.Now.Sub(began)
		if most := (doubt + 4) * Wifi.Check; heard && took > most {
			t.Errorf("the link with a peer that is gone stood for %s, want %s at most", took, most)
		}
		if !heard && took < time.Hour {
			t.Errorf("the link with a silent peer stood for %s", took)
		}
	}
}

// TestUnheardOpenOnALink has an Open that the peer never heard come late, when
// the link stands: the peer may have begun anew, and has not.
func TestUnheardOpenOnALink(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	share(t, air, a, b, 1)
	var late []byte
	air.Cut = func(from, _ dot11.MAC) bool { return from == a.mac }
	air.Tap = func(_ time.Time, s fakeair.Sent) { late = s.Frame.Bytes }
	connect(t, air, a, b)
	air.Cut, air.Tap = nil, nil
	a.Disconnect(air.Now, b.mac, dot11.MeshPeeringCancelled)
	air.Kick()
	air.Run(time.Second)
	connect(t, air, b, a)
	air.Run(time.Second)
	agree(t, a, b)
	air.Inject(b.mac, late)
	air.Run(time.Minute)
	agree(t, a, b)
	if a.count(Closed)+b.count(Closed) != 0 {
		t.Error("a late Open took the link down")
	}
}

// TestLinkIDMismatchIsReported: Morse's driver rewrites elements, so link IDs
// are not authenticated there.
func TestLinkIDMismatchIsReported(t *testing.T) {
	air := fakeair.New(1)
	morse := func(c *Config) { c.Morse = true }
	a, b := join(t, air, 1, morse), join(t, air, 2, morse)
	share(t, air, a, b, 1)
	air.Tap = func(_ time.Time, s fakeair.Sent) {
		m, err := parse(s.Frame.Bytes[dot11.HeaderSize:])
		if err != nil || m.action != confirm || s.From != a.mac {
			return
		}
		f := bytes.Clone(s.Frame.Bytes)
		i := bytes.Index(f, []byte{byte(dot11.MeshPeeringManagement), 22, 1, 0})
		f[i+6]++ // the receiver's link ID
		b.Handle(air.Now, f)
		if b.State(a.mac) == Estab {
			t.Error("a Confirm for another link made one")
		}
	}
	connect(t, air, a, b)
	air.Run(time.Second)
	agree(t, a, b)
	if ev := b.last(Mismatch); ev == nil || ev.Err == nil {
		t.Error("a link ID that does not fit was dropped in silence")
	}
}

// TestMorse has the driver rewrite elements on the way, as Morse's does between
// 11n and S1G. The sizes of AMPE are those that it counts on.
func TestMorse(t *testing.T) {
	for _, mfp := range []MFP{MFPRequired, MFPOff} {
		air := fakeair.New(1)
		change := func(c *Config) {
			c.Morse, c.MFP = true, mfp
			c.Trailing = dot11.AppendElement(nil, 45, make([]byte, 26))
		}
		a, b := join(t, air, 1, change), join(t, air, 2, change)
		share(t, air, a, b, 1)
		sizes := map[action]int{open: 98, confirm: 70, closing: 70}
		if mfp == MFPRequired {
			sizes[open] += 24
		}
		n := 0
		air.Tap = func(_ time.Time, s fakeair.Sent) {
			body := s.Frame.Bytes[dot11.HeaderSize:]
			m, err := parse(body)
			if err != nil || len(m.ciphertext) != sizes[m.action] {
				t.Errorf("%v: AMPE of %d octets, %v", m.action, len(m.ciphertext), err)
			}
			if i := bytes.Index(body, []byte{45, 26, 0}); i >= 0 {
				body[i+2] = 0xff
				n++
			}
		}
		connect(t, air, a, b)
		air.Run(time.Second)
		if !linked(a, b) || n != 4 {
			t.Errorf("%v %v, %d frames rewritten", a.State(b.mac), b.State(a.mac), n)
		}
		a.Disconnect(air.Now, b.mac, dot11.MeshPeeringCancelled)
		air.Kick()
	}
	c := testConfig(1)
	c.Morse, c.MFP = true, MFPOptional
	if _, err := New(c, time.Now()); err == nil {
		t.Error("optional protection is taken, whose sizes Morse's driver does not know")
	}
}

func TestNoFrameUnderNoKey(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	if err := a.Offer(air.Now, address(2), 1, sae.PMKID{1}, sae.PMK{}); err == nil {
		t.Error("a key of zeros is taken")
	}
	// What wpa_supplicant sends when SAE was never accepted.
	for _, x := range fixtures(t) {
		if x.Name != "wrongpw-mfp2" {
			continue
		}
		for _, r := range x.Frames {
			f := fromHex(t, r.Hex)
			copy(f[4:], a.mac[:])
			a.Handle(air.Now, f)
		}
	}
	frames, events := a.Take()
	if len(frames) != 0 || len(events) == 0 || events[0].Kind != UnknownKey {
		t.Errorf("expected the unknown key to be reported and nothing sent, got %d frames and %+v", len(frames), events)
	}
	if a.Connect(air.Now, address(2)) == nil {
		t.Error("connects without a key")
	}
}

func TestFloodIsBounded(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	share(t, air, a, b, 1)
	sent := record(t, air, a, b)
	a.events = nil
	for n := range 5000 {
		f := bytes.Clone(sent[0].Frame.Bytes)
		copy(f[4:], a.mac[:])
		from := address(1000 + n)
		if n%2 == 0 {
			from = b.mac
		}
		copy(f[10:], from[:])
		a.Handle(air.Now, f)
		air.Now = air.Now.Add(time.Millisecond)
	}
	air.Kick()
	if !linked(a, b) {
		t.Errorf("%v %v", a.State(b.mac), b.State(a.mac))
	}
	if len(a.peers) != 1 || len(a.events) > 40 {
		t.Errorf("%d peers and %d events", len(a.peers), len(a.events))
	}
	if s := a.Stats(); s.UnknownKey+s.Unverified+s.Replayed < 5000 {
		t.Errorf("not all is counted: %+v", s)
	}
}

func TestKeysAreWiped(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	share(t, air, a, b, 1)
	connect(t, air, a, b)
	air.Run(time.Second)
	p := a.peers[b.mac]
	s, l := p.securities[0], p.link
	if l.group.MGTK != (Key{}) {
		t.Error("the peer's group key is kept though the radio has it")
	}
	for n := byte(2); n < 10; n++ {
		share(t, air, a, b, n)
	}
	if len(p.securities) != maxSecurities || a.State(b.mac) != Estab || p.security(sae.PMKID{1}) == nil {
		t.Errorf("%d keys, %v", len(p.securities), a.State(b.mac))
	}
	a.Forget(b.mac)
	if s.aek != [sivKeySize]byte{} || s.pmk != (sae.PMK{}) || len(a.peers) != 0 {
		t.Error("keys outlive the peer")
	}
}

func FuzzParse(f *testing.F) {
	for _, x := range fixtures(f) {
		for i, r := range x.Frames {
			if i < 6 {
				f.Add(fromHex(f, r.Hex)[dot11.HeaderSize:])
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		if len(m.clear)+2+sivSize+len(m.ciphertext) != len(b) {
			t.Errorf("%d octets are lost", len(b)-len(m.clear)-2-sivSize-len(m.ciphertext))
		}
		if _, err := agreeRSN(MFPRequired, m.rsn); err == nil && len(m.rsn) < 20 {
			t.Errorf("RSN %x is agreed to", m.rsn)
		}
	})
}

func FuzzParseAMPE(f *testing.F) {
	for _, x := range fixtures(f) {
		for i, r := range x.Frames {
			if i < 6 {
				f.Add(fromHex(f, r.AMPE), r.Kind == "mpm-open")
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, isOpen bool) {
		a, err := parseAMPE(b, isOpen)
		if err != nil {
			return
		}
		again, err := parseAMPE(a.append(), isOpen)
		if err != nil || again.sender != a.sender || again.receiver != a.receiver || isOpen && *again.group != *a.group {
			t.Errorf("%x comes back as %x %v", b, a.append(), err)
		}
	})
}

// FuzzHandle plays any frame to an engine that has a link, as it comes and
// sealed by the peer itself. Only an authentic Close ends the link.
func FuzzHandle(f *testing.F) {
	for _, x := range fixtures(f) {
		for i, r := range x.Frames {
			if i < 6 {
				f.Add(fromHex(f, r.Hex)[dot11.HeaderSize:], fromHex(f, r.AMPE), false)
				f.Add(fromHex(f, r.Hex)[dot11.HeaderSize:], fromHex(f, r.AMPE), true)
			}
		}
	}
	f.Fuzz(func(t *testing.T, body, plain []byte, sealed bool) {
		air := fakeair.New(1)
		a, b := join(t, air, 1, nil), join(t, air, 2, nil)
		share(t, air, a, b, 1)
		connect(t, air, a, b)
		air.Run(100 * time.Millisecond)
		h := dot11.Header{Subtype: dot11.Action, To: a.mac, From: b.mac}
		isClose := false
		if m, err := parse(body); err == nil && sealed {
			isClose = m.action == closing
			// Under the PMKID that both hold, or it would only be an unknown key.
			m.clear = bytes.Replace(m.clear, m.pmkid[:], append([]byte{1}, make([]byte, sae.PMKIDSize-1)...), 1)
			v, out := b.peers[a.mac].securities[0].siv.seal(plain, h.From[:], h.To[:], m.clear)
			body = append(dot11.AppendElement(bytes.Clone(m.clear), dot11.MIC, v[:]), out...)
		}
		air.Inject(a.mac, append(dot11.AppendManagement(nil, h), body...))
		air.Run(time.Second)
		if !isClose && a.State(b.mac) != Estab {
			t.Errorf("the link is gone after %x", body)
		}
	})
}

func BenchmarkPeering(b *testing.B) {
	air := fakeair.New(1)
	x, y := join(b, air, 1, nil), join(b, air, 2, nil)
	x.c.Rand, y.c.Rand = rand.NewChaCha8([32]byte{1}), rand.NewChaCha8([32]byte{2})
	now := air.Now
	b.ReportAllocs()
	n := byte(0)
	for b.Loop() {
		n++
		x.Forget(y.mac)
		y.Forget(x.mac)
		share(b, air, x, y, n|1)
		if x.Connect(now, y.mac) != nil || y.Connect(now, x.mac) != nil {
			b.Fatal("no attempt")
		}
		for !linked(x, y) {
			for _, e := range [][2]*station{{x, y}, {y, x}} {
				frames, _ := e[0].Take()
				for _, f := range frames {
					e[1].Handle(now, f.Bytes)
				}
			}
		}
		x.Take()
		y.Take()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/2, "µs/side")
}
