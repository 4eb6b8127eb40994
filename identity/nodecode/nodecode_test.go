package nodecode

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"halo.internal/identity"
)

func key(t *testing.T, b byte) identity.Key {
	t.Helper()
	k, err := identity.FromSeed(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func code(t *testing.T, own identity.Key, other identity.PublicKey, generation uint32) string {
	t.Helper()
	c, err := New(own, other, generation)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBothSidesKnowTheCode, it is the same for ever, and nobody else's.
func TestBothSidesKnowTheCode(t *testing.T) {
	network, node, other := key(t, 1), key(t, 2), key(t, 3)
	shown := code(t, network, node.Public(), 0)
	if !regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}$`).MatchString(shown) {
		t.Errorf("got %q", shown)
	}
	if own := code(t, node, network.Public(), 0); own != shown {
		t.Errorf("the node expects %s, the gateway shows %s", own, shown)
	}
	if shown != "GE7C-J4AG-4GRE-N99J" { // written on a node's lid, perhaps
		t.Errorf("the code has become %s", shown)
	}
	seen := map[string]string{shown: "the node's"}
	for name, c := range map[string]string{
		"of the next generation":  code(t, network, node.Public(), 1),
		"of another node":         code(t, network, other.Public(), 0),
		"of the gateway":          code(t, network, network.Public(), 0),
		"as of another's network": code(t, node, other.Public(), 0),
	} {
		if was := seen[c]; was != "" {
			t.Errorf("%s is the code %s and %s", c, name, was)
		}
		seen[c] = name
	}
}

func TestCheck(t *testing.T) {
	const c = "7K3M-Q0ZT-1WXP-B2D9"
	for _, good := range []string{c, strings.ToLower(c), "7k3mq0zt1wxpb2d9", " 7K3M QOZT lWXP b2d9\r\n"} {
		if err := Check(c, good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", c[:18], c + "0", strings.Repeat("0", 16), strings.Repeat("7", 1<<16), "7K3M-Q0ZT-1WXP-B2D8", "\x00"} {
		if err := Check(c, bad); !errors.Is(err, ErrWrong) {
			t.Errorf("%.30q: got %v, want ErrWrong", bad, err)
		}
	}
}
