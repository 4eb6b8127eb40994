package mesh

import (
	"os"
	"path/filepath"
	"testing"

	"halo.internal/mesh/announce"
	"halo.internal/model/paths"
)

// lost takes the site's folder on /perm away, as a card does that takes nothing there any
// more, and has it back as it was, as after a power cut. The vault takes all.
func (s *site) lost() (back func()) {
	s.t.Helper()
	dir := filepath.Join(s.root, paths.State)
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	must(os.Rename(dir, dir+".kept"))
	must(os.WriteFile(dir, nil, 0o600))
	return func() {
		s.t.Helper()
		must(os.Remove(dir))
		must(os.Rename(dir+".kept", dir))
	}
}

// TestAFileThatIsBehind is of a time before the power cut, since the vault alone took what
// came last. A start goes by that: by the highest epoch, so that no old gateway is believed,
// by the profile where the mesh went, and by who serves.
func TestAFileThatIsBehind(t *testing.T) {
	s := newSite(t, 1, 0)
	s.vault = &ramVault{m: map[string][]byte{}}
	evidence := func(epoch uint64) []byte {
		t.Helper()
		b, err := announce.Codec{Network: s.key.Public()}.EncodeGateway(s.key,
			announce.Gateway{Stamp: announce.Stamp{Epoch: epoch, Boot: 1, Seq: 1}, WireGuardKey: make([]byte, 32)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	keep := func(c *core, serial uint64) {
		t.Helper()
		c.keepEvidence(evidence(serial))
		home, err := s.document(serial).Open(s.key)
		if err != nil {
			t.Fatal(err)
		}
		if kept, err := c.keepProfile(keptProfile{}, home, nil); !kept {
			t.Fatal(err)
		}
	}
	c := s.core()
	keep(c, 3)
	g := newGateway(c)
	g.voice.StandDown(9)
	if err := g.keepStanding(g.voice.Twinned()); err != nil {
		t.Fatal(err)
	}
	back := s.lost()
	keep(c, 4)
	if err := g.keepStanding(announce.Twinned{}); err == nil {
		t.Error("it tells of no error, though the file stays")
	}
	back()
	for range 2 {
		c := s.core()
		if _, epoch := c.loadEvidence(); epoch != 4 {
			t.Errorf("after a power cut epoch %d is the lowest that is believed, want 4", epoch)
		}
		if k := c.loadProfile(); k.home.Serial != 4 {
			t.Errorf("after a power cut it uses document %d, want 4", k.home.Serial)
		}
		if w := newGateway(c).voice.Twinned(); w.Aside {
			t.Error("after a power cut it stands down, though it had served again")
		}
	}
	if _, err := os.Stat(filepath.Join(s.root, paths.State, paths.StoodDown)); err == nil {
		t.Error("the file is not removed")
	}
}

// TestADamagedSecondCopyChangesNothing of what is read from the first.
func TestADamagedSecondCopyChangesNothing(t *testing.T) {
	s := newSite(t, 1, 0)
	v := &ramVault{m: map[string][]byte{}}
	s.vault = v
	c := s.core()
	home, err := s.document(3).Open(s.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.keepProfile(keptProfile{}, home, nil); err != nil {
		t.Fatal(err)
	}
	v.m[paths.VaultProfile] = []byte("rotten")
	if k := s.core().loadProfile(); k.home.Serial != 3 {
		t.Errorf("it uses document %d, want 3", k.home.Serial)
	}
}
