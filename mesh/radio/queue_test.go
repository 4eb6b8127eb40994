package radio

import (
	"math/rand/v2"
	"slices"
	"testing"

	"halo.internal/drivers/nl80211"
	"halo.internal/model/dot11"
)

// heardFrom is a frame of a sender: authentication, or of peering.
func heardFrom(subtype dot11.Subtype, from byte, body ...byte) nl80211.Frame {
	h := dot11.Header{Subtype: subtype, To: dot11.MAC{2, 0, 0, 0, 0, 1}, From: dot11.MAC{2, 0, 0, 0, 0, from}}
	return nl80211.Frame{Data: append(dot11.AppendManagement(nil, h), body...)}
}

func commit(from byte) nl80211.Frame { return heardFrom(dot11.Authentication, from, 3, 0, 1, 0) }
func open(from byte) nl80211.Frame   { return heardFrom(dot11.Action, from, 15, 1) }
func beaconOf(from byte) nl80211.PeerCandidate {
	return nl80211.PeerCandidate{MAC: []byte{2, 0, 0, 0, 0, from}}
}

// peer and another are the stations that are wanted.
const peer, another = 9, 10

func wanted(mac dot11.MAC) bool { return mac[5] == peer || mac[5] == another }

// TestNobodyIsHeardLate has one kind of event come without end, four for each that is
// worked on: what comes of every other kind, and of the kernel itself, is worked on
// within a few turns all the same; of the same kind or in the same name sooner or later,
// where it is said again.
func TestNobodyIsHeardLate(t *testing.T) {
	const turns = max(lanes*maxWaiting, 2*peeringOf) // that a frame has, until it is said again
	for _, flood := range []struct {
		name string
		next func(n int) nl80211.Event
		hard []string // what it is hard to say meanwhile
	}{
		{"Commits of strangers", func(n int) nl80211.Event { return commit(byte(100 + n%100)) }, nil},
		{"Commits in the peer's name", func(int) nl80211.Event { return commit(peer) }, []string{"the peer's Confirm"}},
		{"Commits in another's name", func(int) nl80211.Event { return commit(another) }, nil},
		{"Commits in the names of both", func(n int) nl80211.Event { return commit(byte(peer + n%2)) }, []string{"the peer's Confirm"}},
		{"Opens in another's name", func(int) nl80211.Event { return open(another) }, nil},
		{"Opens of strangers", func(n int) nl80211.Event { return open(byte(100 + n%100)) }, []string{"the peer's Open"}},
		{"all of them", func(n int) nl80211.Event {
			switch from := byte(100 + n%100); n % 3 {
			case 0:
				return commit(from)
			case 1:
				return open(from)
			default:
				return beaconOf(from)
			}
		}, []string{"the peer's Open", "a beacon"}},
		{"beacons of strangers", func(n int) nl80211.Event { return beaconOf(byte(100 + n%100)) }, []string{"a beacon"}},
	} {
		for _, heard := range []struct {
			name  string
			event nl80211.Event
		}{
			{"the kernel", nl80211.StationRemoved{Station: nl80211.StationInfo{MAC: []byte{2, 0, 0, 0, 0, peer}}}},
			{"the peer's Open", open(peer)},
			{"the peer's Confirm", heardFrom(dot11.Authentication, peer, 3, 0, 2, 0)},
			{"a beacon", beaconOf(peer)},
		} {
			t.Run(flood.name+", "+heard.name, func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				var q queue
				n := 0
				come := func(most int) {
					for range most {
						q.put(flood.next(n), wanted)
						n++
					}
				}
				come(1000)
				if !slices.Contains(flood.hard, heard.name) {
					q.put(heard.event, wanted)
					for range turns {
						if same(q.take(), heard.event) {
							return
						}
						come(4)
					}
					t.Fatalf("not heard in %d turns", turns)
				}
				for said := 0; said < 100; {
					before := random.IntN(5) // of the four that come until the next turn
					come(before)
					if random.IntN(turns) == 0 {
						q.put(heard.event, wanted)
						said++
					}
					come(4 - before)
					if same(q.take(), heard.event) {
						return
					}
				}
				t.Error("said a hundred times, and not heard")
			})
		}
	}
}

func same(a, b nl80211.Event) bool {
	switch b := b.(type) {
	case nl80211.Frame:
		a, ok := a.(nl80211.Frame)
		return ok && string(a.Data) == string(b.Data)
	case nl80211.PeerCandidate:
		a, ok := a.(nl80211.PeerCandidate)
		return ok && string(a.MAC) == string(b.MAC)
	case nl80211.StationRemoved:
		_, ok := a.(nl80211.StationRemoved)
		return ok
	}
	return false
}

// TestAPeersFramesComeInOrder: what it said of authentication before it opened a link
// comes first, whatever else waits.
func TestAPeersFramesComeInOrder(t *testing.T) {
	for _, from := range []byte{peer, 7} {
		var q queue
		q.put(open(8), wanted)
		q.put(commit(from), wanted)
		q.put(open(from), wanted)
		q.put(commit(from), wanted)
		var got []byte
		for e := q.take(); e != nil; e = q.take() {
			if f := e.(nl80211.Frame); f.Data[15] == from {
				got = append(got, f.Data[0])
			}
		}
		auth, action := byte(dot11.Authentication)<<4, byte(dot11.Action)<<4
		if want := string([]byte{auth, action, auth}); string(got) != want {
			t.Errorf("of %d came %x, want %x", from, got, want)
		}
	}
}

// TestOrderOutlivesAWish: who is wanted from now on is heard in the order of what it said.
func TestOrderOutlivesAWish(t *testing.T) {
	confirm := heardFrom(dot11.Authentication, 7, 3, 0, 2, 0)
	for _, first := range []bool{true, false} {
		var q queue
		q.put(commit(another), wanted)
		q.put(commit(7), func(dot11.MAC) bool { return first })
		q.put(confirm, func(dot11.MAC) bool { return !first })
		var got []byte
		for e := q.take(); e != nil; e = q.take() {
			if f := e.(nl80211.Frame); f.Data[15] == 7 {
				got = append(got, f.Data[managementHeader+2])
			}
		}
		if string(got) != "\x01\x02" {
			t.Errorf("wanted at first: %v: came %x, want a Commit and a Confirm", first, got)
		}
	}
}

// TestWhatWaitsIsBounded, whatever comes, and all that found room is given out once.
func TestWhatWaitsIsBounded(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q queue
	taken := 0
	for range 100_000 {
		from := byte(random.IntN(256))
		switch random.IntN(8) {
		case 0:
			q.put(nl80211.Frame{Data: make([]byte, random.IntN(20))}, wanted) // most are no frames
		case 1, 2:
			q.put(commit(from), wanted)
		case 3:
			q.put(open(from), wanted)
		case 4:
			q.put(beaconOf(from), wanted)
		case 5:
			q.put(heardFrom(dot11.Action, from, strange...), wanted)
		default:
			if q.take() != nil {
				taken++
			}
		}
		for l, waits := range q.lanes {
			if len(waits) > maxWaiting {
				t.Fatalf("%d frames wait in lane %d, want %d at most", len(waits), l, maxWaiting)
			}
		}
	}
	for q.take() != nil {
		taken++
	}
	if got := taken + int(q.crowdedOut); got != int(q.came) || !q.empty() {
		t.Errorf("%d frames came, %d were taken and %d found no room", q.came, taken, q.crowdedOut)
	}

	for range 5 * maxTold {
		q.put(nl80211.StationRemoved{}, wanted)
	}
	if n := len(q.told); n > maxTold+1 {
		t.Errorf("%d events of the kernel wait", n)
	}
	if _, ok := q.take().(nl80211.Overflow); !ok {
		t.Error("nothing tells that events of the kernel were lost")
	}
}
