package sae

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"filippo.io/nistec"

	"halo.internal/mesh/fakeair"
)

func TestKeysDoNotPrint(t *testing.T) {
	k := PMK{0xab, 0xcd, 1, 2, 3}
	b, err := json.Marshal(map[string]any{"pmk": k})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "pmk", k, "in", struct{ K PMK }{k})
	for _, s := range []string{
		fmt.Sprint(k), fmt.Sprintf("%x %v %+v %#v %d %s", k, k, k, k, k, k), fmt.Sprintf("%v", struct{ K PMK }{k}), string(b), log.String(),
	} {
		if strings.Contains(strings.ToLower(s), "abcd") || strings.Contains(s, "171") {
			t.Errorf("a key is in %q", s)
		}
	}
}

func TestSecretsAreWiped(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	begin(t, air, a, b)
	attempt := a.peers[b.mac].attempt
	air.Run(time.Second)
	agree(t, a, b)
	former := a.peers[b.mac].former
	air.Run(a.c.Timing.Linger)
	if zero := [scalarSize]byte{}; attempt.secrets.rand != zero || former.secrets.rand != zero || a.peers[b.mac].former != nil {
		t.Error("the random number outlives its time")
	}
	for _, c := range append(attempt.candidates, former.candidates...) {
		if c != nil && c.keys != (keys{pmkid: c.keys.pmkid}) {
			t.Error("keys of a candidate outlive its exchange")
		}
	}
	p := a.peers[b.mac]
	sa, pwe, password := p.sas[0], p.pwe, a.c.Password
	a.Close()
	infinity := nistec.NewP256Point()
	if sa.keys.pmk != (PMK{}) || sa.keys.kck != [kckSize]byte{} || pwe.Equal(infinity) != 1 || a.pt.Equal(infinity) != 1 || strings.Trim(string(password), "\x00") != "" {
		t.Error("secrets outlive the engine")
	}
}
