package mesh

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"testing"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/state"
	"halo.internal/model/paths"
)

// ramVault counts what is written to it.
type ramVault struct {
	m    map[string][]byte
	puts int
}

func (v *ramVault) Get(name string) ([]byte, error) {
	if b, ok := v.m[name]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (v *ramVault) Put(name string, b []byte) error {
	v.m[name] = b
	v.puts++
	return nil
}

func TestEvidenceOutlivesTheProcessAndEitherCopy(t *testing.T) {
	network := identity.New()
	say := func(key identity.Key, epoch uint64) []byte {
		t.Helper()
		b, err := announce.Codec{Network: network.Public()}.EncodeGateway(key,
			announce.Gateway{Stamp: announce.Stamp{Epoch: epoch, Boot: 1, Seq: 1}, WireGuardKey: make([]byte, 32)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := say(network, 9)
	torn, bent := good[:len(good)-9], bytes.Clone(good)
	bent[len(bent)/2] ^= 4
	for _, tc := range []struct {
		name        string
		file, vault []byte
		want        uint64
	}{
		{"there never was any", nil, nil, 0},
		{"both", good, good, 9},
		{"the file is gone", nil, good, 9},
		{"the file is torn", torn, good, 9},
		{"the vault has none", good, nil, 9},
		{"both are damaged", torn, bent, 0},
		{"empty", []byte{}, nil, 0},
		{"huge", make([]byte, 2<<20), nil, 0},
		{"another key's", say(identity.New(), 9), nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := &ramVault{m: map[string][]byte{}}
			c := &core{Config: Config{Log: slog.New(slog.DiscardHandler)}, store: state.New(paths.Dir(t.TempDir()), v), net: network.Public()}
			if tc.file != nil {
				if err := os.WriteFile(c.store.Dir().File(paths.Evidence), tc.file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.vault != nil {
				v.m[paths.VaultEvidence] = tc.vault
			}
			evidence, epoch := c.loadEvidence()
			if epoch != tc.want || (evidence != nil) != (tc.want > 0) {
				t.Fatalf("got epoch %d from %d octets, want %d", epoch, len(evidence), tc.want)
			}
			c.keepEvidence(say(network, 10))
			if evidence, epoch := c.loadEvidence(); epoch != 10 || !bytes.Equal(evidence, say(network, 10)) {
				t.Errorf("after a higher one: got epoch %d", epoch)
			}
			c.forgetNetwork()
			if evidence, epoch := c.loadEvidence(); evidence != nil || epoch != 0 {
				t.Errorf("after the network was forgotten: epoch %d", epoch)
			}
		})
	}
}
