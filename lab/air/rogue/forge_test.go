package rogue

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"halo.internal/model/dot11"
)

const MeshOfTests = "valley"

// MeshBeacon is one of a member as mac80211 makes it.
func MeshBeacon(of dot11.MAC) []byte {
	b := dot11.AppendManagement(nil, dot11.Header{Subtype: beacon, To: toAll, From: of})
	b = append(b, 1, 2, 3, 4, 5, 6, 7, 8, 100, 0, 0x10, 0)
	for _, e := range []dot11.Element{
		{ID: dot11.SSID},
		{ID: dot11.SupportedRates, Body: []byte{0x82, 0x84, 0x8b, 0x96, 0x8c, 0x12, 0x98, 0x24}},
		{ID: dsParameterSet, Body: []byte{6}},
		{ID: dot11.ExtendedSupportedRates, Body: []byte{0xb0, 0x48, 0x60, 0x6c}},
		{ID: dot11.RSN, Body: []byte{1, 0, 0, 0x0f, 0xac, 4, 1, 0, 0, 0x0f, 0xac, 4, 1, 0, 0, 0x0f, 0xac, 8, 0xc0, 0}},
		{ID: htCapabilities, Body: append([]byte{0x2c, 0}, make([]byte, 24)...)},
		{ID: htOperation, Body: append([]byte{6}, make([]byte, 21)...)},
		{ID: dot11.MeshID, Body: []byte(MeshOfTests)},
		{ID: dot11.MeshConfiguration, Body: []byte{1, 1, 0, 1, 1, 1 << 1, 1}},
	} {
		b = dot11.AppendElement(b, e.ID, e.Body)
	}
	return b
}

func parsed(t *testing.T, frame []byte) (dot11.Header, member) {
	t.Helper()
	h, body, err := dot11.ParseManagement(frame)
	if err != nil || h.Subtype != beacon || h.To != toAll || len(body) < beaconFixed {
		t.Fatalf("no beacon: %+v, %v", h, err)
	}
	m := member{mac: h.From, fixed: body[:beaconFixed]}
	for rest := body[beaconFixed:]; len(rest) > 0; {
		var e dot11.Element
		if e, rest, err = dot11.NextElement(rest); err != nil {
			t.Fatal(err)
		}
		m.elements = append(m.elements, e)
	}
	return h, m
}

func TestBeaconsAreOfManyAndTellLies(t *testing.T) {
	r := listening(t, Beacons, MeshBeacon(from), MeshBeacon(to))
	strangers, told := map[dot11.MAC]bool{}, map[dot11.MAC]int{}
	var channel, unprotected, open, full, renamed, slow int
	for range 4 * 2 * len(lies) {
		h, m := parsed(t, next(t, r).Data)
		if h.From != from && h.From != to {
			strangers[h.From] = true
			if whole := MeshBeacon(h.From); !bytes.Equal(append(dot11.AppendManagement(nil, h), whole[dot11.HeaderSize:]...), whole) ||
				string(m.element(dot11.MeshID)) != MeshOfTests {
				t.Errorf("%s is no member to be taken for one", h.From)
			}
			continue
		}
		told[h.From]++
		rsn := m.element(dot11.RSN)
		switch c := m.element(dot11.MeshConfiguration); {
		case rsn == nil:
			open++
		case m.element(dsParameterSet)[0] != 6 && m.element(htOperation)[0] == m.element(dsParameterSet)[0]:
			channel++
		case m.element(htOperation) == nil:
			slow++
		case binary.LittleEndian.Uint16(rsn[len(rsn)-2:]) == 0:
			unprotected++
		case c[6]&1 == 0:
			full++
		case string(m.element(dot11.MeshID)) != MeshOfTests:
			renamed++
		}
	}
	if len(strangers) != 3*2*len(lies) || told[from] != len(lies) || told[to] != len(lies) {
		t.Errorf("%d strangers, in members' names %v, want each fourth, and each of the members' telling each lie", len(strangers), told)
	}
	if unprotected != 2 || open != 2 || full != 2 || renamed != 2 || slow != 2 || channel != 2 {
		t.Errorf("told: unprotected %d, open %d, full %d, renamed %d, slow %d, another channel %d", unprotected, open, full, renamed, slow, channel)
	}
	if a, b := r.members[0], r.members[1]; !bytes.Equal(a.fixed, b.fixed) || len(a.elements) != 9 || len(b.elements) != 9 {
		t.Error("what was heard was changed by what was forged")
	}
}

func TestPeeringFramesWithoutAnyHeard(t *testing.T) {
	r := listening(t, Opens, MeshBeacon(from), MeshBeacon(to))
	f, again := next(t, r).Data, next(t, r).Data
	if h, _, err := dot11.ParseManagement(f); err != nil || h.From == h.To || len(f) < 200 || bytes.Equal(f, again) {
		t.Errorf("got %x and %x, %v", f, again, err)
	}
}

func TestDeauth(t *testing.T) {
	r := listening(t, Deauth, MeshBeacon(from), MeshBeacon(to))
	got := map[dot11.Subtype]int{}
	group := 0
	for range 48 {
		h, body, err := dot11.ParseManagement(next(t, r).Data)
		if err != nil || h.From != from && h.From != to || h.To == h.From || len(body) != 2 || body[1] != 0 {
			t.Fatalf("got %+v, %x, %v", h, body, err)
		}
		if h.To == toAll {
			group++
		}
		got[h.Subtype]++
	}
	if group != 12 || got[deauthentication] != 24 || got[disassociation] != 24 {
		t.Errorf("%d to all, by subtype %v", group, got)
	}
}

func TestChannelSwitches(t *testing.T) {
	r := listening(t, ChannelSwitch, MeshBeacon(from), MeshBeacon(to))
	senders, channels := map[dot11.MAC]int{}, map[byte]int{}
	for n := range 60 {
		h, m := parsed(t, next(t, r).Data)
		senders[h.From]++
		a, p := m.element(channelSwitchAnnouncement), m.element(meshChannelSwitch)
		if len(m.elements) != 11 || len(a) != 3 || len(p) != 6 || int(binary.LittleEndian.Uint16(p[4:])) != n+1 {
			t.Fatalf("announcement %x, %x", a, p)
		}
		channels[a[1]]++
	}
	if len(senders) < 30 || senders[from] != 15 || senders[to] != 15 || len(channels) != 3 {
		t.Errorf("senders %v, channels %v", senders, channels)
	}
}

// kind says which attack a frame is of.
func kind(t *testing.T, f []byte, kept [][]byte) Attack {
	h, body, err := dot11.ParseManagement(f)
	switch {
	case slices.ContainsFunc(kept, func(k []byte) bool { return bytes.Equal(k, f) }):
		return Replay
	case err != nil:
		t.Fatal(err)
	case h.Subtype == dot11.Authentication:
		return Commits
	case h.Subtype == beacon:
		return Beacons
	case h.Subtype == deauthentication || h.Subtype == disassociation:
		return Deauth
	case h.Subtype == dot11.Action:
		for a, action := range actions {
			if body[1] == action {
				return a
			}
		}
	}
	t.Fatalf("frame of no attack: %x", f)
	return ""
}

func TestAllInTurn(t *testing.T) {
	heard := [][]byte{MeshBeacon(from), MeshBeacon(to)}
	r := listening(t, All, heard...)
	for n := range 10 * len(each) {
		if got := kind(t, next(t, r).Data, heard); got != each[n%len(each)] {
			t.Fatalf("frame %d is of %s, want %s", n, got, each[n%len(each)])
		}
	}
}

// TestWhatWasHeardIsNotEnough has a rogue do what it can: of two it is said that
// they are members, or of none.
func TestWhatWasHeardIsNotEnough(t *testing.T) {
	one := [][]byte{MeshBeacon(from)}
	r := listening(t, All, one...)
	for _, want := range []Attack{Commits, Beacons, Replay, Commits} {
		if got := kind(t, next(t, r).Data, one); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	r = listening(t, All, hello(from))
	for _, want := range []Attack{Commits, Replay, Commits} {
		if got := kind(t, next(t, r).Data, [][]byte{hello(from)}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// FuzzDeliver has a rogue hear anything, and forge from it.
func FuzzDeliver(f *testing.F) {
	f.Add(MeshBeacon(from)[16:], MeshBeacon(to)[16:])
	f.Add([]byte{0, 0}, MeshBeacon(to)[16:])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r, err := New(Config{Attack: All, PerSecond: 1}, own)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []struct {
			from dot11.MAC
			tail []byte
		}{{from, a}, {to, b}} {
			for _, subtype := range []dot11.Subtype{beacon, dot11.Action} {
				head := dot11.AppendManagement(nil, dot11.Header{Subtype: subtype, To: to, From: x.from})
				if err := r.Deliver(own, append(head[:16], x.tail...), 4, -60, 2437); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 8 * 4 * len(each) {
			r.frame()
		}
	})
}
