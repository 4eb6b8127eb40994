package mesh

import (
	"encoding/base64"
	"slices"
	"testing"

	"halo.internal/identity"
	"halo.internal/identity/nodecode"
)

// What is used since the bundle is cut out of a support bundle too: keys of the
// overlay that have rotated, secrets of the mesh, codes of a later generation.
func TestSecretsThatHaveRotated(t *testing.T) {
	next := [32]byte{2}
	m := &core{net: identity.New().Public(), keys: &overlayKey{private: [32]byte{1}, next: &next}}
	m.id.Key = identity.New()
	m.hidden = func() []string { return append([]string{"another passphrase"}, m.codeOf(3)...) }
	code, err := nodecode.New(m.id.Key, m.net, 3)
	if err != nil {
		t.Fatal(err)
	}
	got := m.secrets()
	for what, want := range map[string]string{
		"overlay key": base64.StdEncoding.EncodeToString(m.keys.private[:]), "next overlay key": base64.StdEncoding.EncodeToString(next[:]),
		"mesh secret": "another passphrase", "code": code,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("the %s is not among the secrets", what)
		}
	}
}
