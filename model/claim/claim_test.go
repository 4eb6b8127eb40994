package claim

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestCodeHasAtLeastSixtyBitsAndSurvivesTyping(t *testing.T) {
	code := NewCode()
	norm, err := Normalise(code)
	if err != nil {
		t.Fatal(err)
	}
	if len(norm)*5 < 60 {
		t.Errorf("code %q has %d bits, want 60 or more", code, len(norm)*5)
	}
	for _, typed := range []string{strings.ToLower(code), strings.ReplaceAll(code, "-", " "), strings.ReplaceAll(code, "0", "o"), strings.ReplaceAll(code, "1", "l"), " " + code + "\n"} {
		if got, err := Normalise(typed); err != nil || got != norm {
			t.Errorf("typed as %q: got %q, %v, want %q", typed, got, err, norm)
		}
	}
	for _, bad := range []string{"", "ABCD-EFGH-JKM", "ABCD-EFGH-JKM!", strings.Repeat("A", 65), "ÄBCDEFGHJKMNP"} {
		if _, err := Normalise(bad); !errors.Is(err, ErrCode) {
			t.Errorf("%q: got %v, want ErrCode", bad, err)
		}
	}
}

func fixture(t *testing.T) (Key, Exchange) {
	t.Helper()
	k, err := Derive("7K3M-Q0ZT-4WXPB", bytes.Repeat([]byte{7}, SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	return k, Exchange{ClientNonce: bytes.Repeat([]byte{1}, NonceSize), ServerNonce: bytes.Repeat([]byte{2}, NonceSize), Binding: bytes.Repeat([]byte{3}, 32)}
}

// The values are fixed for ever: a client of one release claims a gateway of
// another.
func TestProofsAreStable(t *testing.T) {
	k, e := fixture(t)
	server, err := k.ServerProof(e)
	if err != nil {
		t.Fatal(err)
	}
	client, err := k.ClientProof(e, "admin", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, want string
		got        []byte
	}{
		{"server", serverGolden, server},
		{"client", clientGolden, client},
	} {
		if got := hex.EncodeToString(tc.got); got != tc.want {
			t.Errorf("%s proof: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestProofFitsItsExchangeOnly(t *testing.T) {
	k, e := fixture(t)
	server, _ := k.ServerProof(e)
	client, _ := k.ClientProof(e, "admin", "correct horse")
	if !k.VerifyServer(e, server) || !k.VerifyClient(e, "admin", "correct horse", client) {
		t.Fatal("a right proof was refused")
	}
	other := e
	other.ServerNonce = bytes.Repeat([]byte{9}, NonceSize)
	if k.VerifyServer(other, server) {
		t.Error("a proof for another nonce was taken")
	}
	other = e
	other.Binding = nil
	if k.VerifyServer(other, server) {
		t.Error("a proof for another TLS key was taken")
	}
	if k.VerifyServer(e, client) {
		t.Error("the client's proof was taken for the server's")
	}
	if k.VerifyClient(e, "admin", "another password", client) || k.VerifyClient(e, "root", "correct horse", client) {
		t.Error("a proof was taken for other credentials")
	}
	wrong, err := Derive("7K3M-Q0ZT-4WXPC", bytes.Repeat([]byte{7}, SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	if wrong.VerifyServer(e, server) {
		t.Error("a proof was taken with another code")
	}
	other = e
	other.ClientNonce = e.ClientNonce[:31]
	if _, err := k.ServerProof(other); !errors.Is(err, ErrExchange) {
		t.Errorf("short nonce: got %v, want ErrExchange", err)
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	k, _ := fixture(t)
	for _, s := range []string{fmt.Sprintf("%v", k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k)} {
		if s != "claim key" {
			t.Errorf("key printed as %q", s)
		}
	}
}

func FuzzNormalise(f *testing.F) {
	f.Add("7K3M-Q0ZT-4WXPB")
	f.Add("oil oil oil oil")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Normalise(s)
		if err != nil {
			return
		}
		if again, err := Normalise(n); err != nil || again != n {
			t.Fatalf("%q normalises to %q, then to %q, %v", s, n, again, err)
		}
	})
}

const (
	serverGolden = "26beef998c6fa33a3a72bc87f4e6fa5e5bcb2a784e94259b8dd3093fce1ddfae"
	clientGolden = "f92d291eabb52e3bf5a9ea46fa449500719b1b4d0ed84c4790d67d54143c4865"
)
