package dot11

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestManagementFramesComeBack(t *testing.T) {
	h := Header{Subtype: Authentication, To: MAC{2, 0, 0, 0, 0, 1}, From: MAC{2, 0, 0, 0, 0, 2}}
	b := append(AppendManagement(nil, h), "body"...)
	got, body, err := ParseManagement(b)
	if err != nil || got != h || string(body) != "body" {
		t.Fatalf("expected %+v and its body, got %+v %q %v", h, got, body, err)
	}
	for name, change := range map[string]func([]byte){
		"data frame": func(b []byte) { b[0] |= 8 },
		"encrypted":  func(b []byte) { b[1] |= flagProtected },
		"HT control": func(b []byte) { b[1] |= flagOrder },
		"from group": func(b []byte) { b[10] |= 1 },
	} {
		c := bytes.Clone(b)
		change(c)
		if _, _, err := ParseManagement(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, _, err := ParseManagement(b[:HeaderSize-1]); err == nil {
		t.Error("a frame cut short is accepted")
	}
}

func TestElementsComeBack(t *testing.T) {
	list := []Element{{MeshID, []byte("mesh")}, {TokenContainer, []byte{1, 2}}, {RSN, nil}, {AMPE, make([]byte, 255)}, {PasswordIdentifier, make([]byte, 254)}}
	var b []byte
	for _, e := range list {
		b = AppendElement(b, e.ID, e.Body)
	}
	for _, want := range list {
		e, rest, err := NextElement(b)
		if err != nil || e.ID != want.ID || !bytes.Equal(e.Body, want.Body) {
			t.Fatalf("expected %+v, got %+v %v", want, e, err)
		}
		b = rest
	}
	for _, torn := range [][]byte{{1}, {1, 2, 3}, {255, 0}} {
		if _, _, err := NextElement(torn); err == nil {
			t.Errorf("%x is accepted", torn)
		}
	}
}

// TestKDF compares with a session that wpa_supplicant logged: KCK and PMK from
// the key seed and the sum of scalars: two blocks, with a context in two parts.
func TestKDF(t *testing.T) {
	seed, _ := hex.DecodeString("5bcdebe8f92ae131099b08cb7e1443a2fb2a6e1e1476330c8296a90afa5bb39e")
	// the sum of both scalars modulo the order of P-256
	sum, _ := hex.DecodeString("9e9ed9615e95df08bade785526f84c58bda7a11eac208e475e742515e4a71a70")
	out := make([]byte, 64)
	KDF(out, seed, "SAE KCK and PMK", sum[:16], sum[16:])
	if got := hex.EncodeToString(out); got != "4af461ca71acdeb2d14a18fb570656d2dbdc117cb76b2eb549d31199438a0026"+"71cd6c845b205f1ce7319fc15f02d5e1fc2f69d43fcb719f4de22e45011508a7" {
		t.Errorf("got %s", got)
	}
}

func FuzzNextElement(f *testing.F) {
	f.Add(AppendElement(AppendElement(nil, MeshID, []byte("mesh")), TokenContainer, []byte{1}))
	f.Add([]byte{255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			e, rest, err := NextElement(b)
			if err != nil {
				return
			}
			if again := AppendElement(nil, e.ID, e.Body); !bytes.Equal(again, b[:len(b)-len(rest)]) {
				t.Fatalf("expected %x, got %x", b[:len(b)-len(rest)], again)
			}
			b = rest
		}
	})
}

func FuzzParseManagement(f *testing.F) {
	f.Add(AppendManagement(nil, Header{Subtype: Action, To: MAC{2}, From: MAC{4}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := ParseManagement(b)
		if err == nil && (len(body) != len(b)-HeaderSize || h.From.Group()) {
			t.Errorf("%+v of %x", h, b)
		}
	})
}
