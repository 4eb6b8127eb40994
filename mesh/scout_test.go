package mesh

import (
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/model/dot11"
)

// TestOneScoutAtATime plays a day of devices that reach each other and not the
// gateway.
func TestOneScoutAtATime(t *testing.T) {
	for _, count := range []int{1, 2, 3, 7, 40} {
		went := make([][]time.Duration, count) // when each was away
		last := time.Duration(-1)
		for silent := time.Duration(0); silent < 24*time.Hour; silent += 10 * time.Second {
			goes := 0
			for rank := range count {
				began, ours := scout{rank, count}.turn(silent)
				if began > silent {
					t.Fatalf("%d devices, after %s: a turn that began after %s", count, silent, began)
				}
				n := len(went[rank])
				if ours && (n == 0 || went[rank][n-1] < began) {
					went[rank] = append(went[rank], silent)
					goes++
				}
			}
			if goes == 0 {
				continue
			}
			if silent < scoutFirst || goes > 1 || last >= 0 && silent-last < scoutTurn {
				t.Fatalf("%d devices, after %s: %d of them away, %s after the one before", count, silent, goes, silent-last)
			}
			last = silent
		}
		for rank, at := range went {
			// Those that were left behind are all looked for within minutes of each
			// other; a network whose gateway is off for a day is left in peace.
			if len(at) == 0 || at[0] > scoutFirst+time.Duration(count)*scoutTurn {
				t.Errorf("%d devices: number %d went at %v, want it to have gone after %s", count, rank, at, scoutFirst+time.Duration(count)*scoutTurn)
			}
			if most := int(24*time.Hour/scoutMost)/count + 5; len(at) > most {
				t.Errorf("%d devices: number %d went %d times in a day, want at most %d", count, rank, len(at), most)
			}
			if n := len(at); count > 1 && count < 20 && n > 1 && at[n-1]-at[n-2] < time.Duration(count)*scoutMost {
				t.Errorf("%d devices: number %d went twice within %s in the end", count, rank, at[n-1]-at[n-2])
			}
		}
	}
}

func TestWhoIsAScout(t *testing.T) {
	gateway, own, near, away := identity.New().Public(), identity.New().Public(), identity.New().Public(), identity.New().Public()
	all := []identity.PublicKey{own, near, away, gateway}
	at := func(key identity.PublicKey, turn uint8) dot11.MAC { return dot11.MAC(batman.MAC(key, turn)) }
	first := 0
	if near.ID() < own.ID() {
		first = 1
	}
	for _, tc := range []struct {
		name  string
		there map[dot11.MAC]bool
		want  scout
		ok    bool
	}{
		{"nobody can tell", nil, scout{0, 1}, true},
		{"nobody else", map[dot11.MAC]bool{at(own, 0): true}, scout{0, 1}, true},
		{"a member, by the address of its third start", map[dot11.MAC]bool{at(near, 2): true}, scout{first, 2}, true},
		{"a stranger", map[dot11.MAC]bool{{2, 0, 0, 0, 0, 9}: true}, scout{0, 1}, true},
		{"the gateway, which says nothing", map[dot11.MAC]bool{at(near, 2): true, at(gateway, 1): true}, scout{}, false},
	} {
		if got, ok := scoutAmong(own, gateway, all, tc.there); got != tc.want || ok != tc.ok {
			t.Errorf("%s: got %+v, %v, want %+v, %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
}
