package layout

import (
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/model/paths"
)

func valid() Slot {
	return Slot{
		Version: "v0.1.0", Commit: "abc", Board: "qemu-virt", Role: "node",
		KernelRelease: "6.12.117+deb12-arm64",
		ModulesSHA256: strings.Repeat("ab", 32), ModulesSize: 4096,
		Root: Root{Size: 40 << 20, Hash: strings.Repeat("cd", 32), Salt: strings.Repeat("ef", 32)},
	}
}

func TestSlotRoundTrip(t *testing.T) {
	b, err := valid().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSlot(b)
	if err != nil {
		t.Fatal(err)
	}
	want := valid()
	want.Format = Format
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSlotRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Slot)
		want   string
	}{
		"path in release":   {func(s *Slot) { s.KernelRelease = "../x" }, "kernel_release"},
		"short hash":        {func(s *Slot) { s.Root.Hash = "ab" }, "root.hash"},
		"no digest":         {func(s *Slot) { s.ModulesSHA256 = "" }, "modules_sha256"},
		"odd size":          {func(s *Slot) { s.Root.Size = 4097 }, "root.size"},
		"larger than slot":  {func(s *Slot) { s.Root.Size = RootSize }, "root.size"},
		"negative modules":  {func(s *Slot) { s.ModulesSize = -1 }, "modules_size"},
		"salt is not hex":   {func(s *Slot) { s.Root.Salt = strings.Repeat("zz", 32) }, "root.salt"},
		"modules too large": {func(s *Slot) { s.ModulesSize = BootSize + 1 }, "modules_size"},
	} {
		t.Run(name, func(t *testing.T) {
			s := valid()
			tc.change(&s)
			if _, err := s.Marshal(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want one that names %s", err, tc.want)
			}
		})
	}
}

func TestSlotLineIsOverwrittenInPlace(t *testing.T) {
	if a, b := SlotLine('a'), SlotLine('b'); len(a) != len(b) || a == b {
		t.Errorf("got %q and %q, want two different lines of one length", a, b)
	}
}

// TestTheRunningSystemFindsIt holds what is written against where it is read.
func TestTheRunningSystemFindsIt(t *testing.T) {
	if got, want := paths.HaLow("b"), filepath.Join(paths.Boot, SlotDir('b'), HaLow); got != want {
		t.Errorf("settings of HaLow: sought at %s, written to %s", got, want)
	}
}

func FuzzParseSlot(f *testing.F) {
	b, err := valid().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"root":{"size":-4096}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSlot(b)
		if err == nil && s.Check() != nil {
			t.Errorf("accepted %+v", s)
		}
	})
}
