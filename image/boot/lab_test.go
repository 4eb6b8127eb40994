//go:build lab

package boot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"halo.internal/hal/card"
	"halo.internal/identity"
	"halo.internal/image/layout"
	"halo.internal/lab/disk"
	"halo.internal/lab/machine"
	"halo.internal/model/paths"
	"halo.internal/update/slots"
)

// These tests start the real image in an emulated machine after something was
// done to its card.

// patience is far beyond what a start takes.
const patience = 3 * time.Minute

// cardSize is larger than the image, as cards are, and gives /perm a size at
// which ext4 keeps copies of its superblock.
const cardSize = 2 << 30

type board struct {
	t *testing.T
	d *disk.Disk
	m *machine.Machine
}

func newBoard(t *testing.T) board {
	t.Helper()
	images := os.Getenv("HALO_IMAGES")
	if images == "" {
		images = "../../out"
	}
	base := filepath.Join(t.TempDir(), "card")
	if err := copySparse(base, filepath.Join(images, "halo-node-qemu-virt.img")); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Create(base, filepath.Join(t.TempDir(), "overlay"), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	m, err := machine.New(machine.Config{Name: "node", Dir: t.TempDir(), Disk: d, MemoryMB: 256, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.PowerCut(); err != nil && !errors.Is(err, machine.ErrOff) {
			t.Error(err)
		}
	})
	return board{t, d, m}
}

// copySparse copies an image to a larger card and leaves zeroes as holes.
func copySparse(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(buf)) {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		if err != nil {
			return out.Truncate(cardSize)
		}
	}
}

func (b board) powerOn() {
	b.t.Helper()
	if err := b.m.PowerOn(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b board) powerCut() {
	b.t.Helper()
	if err := b.m.PowerCut(); err != nil {
		b.t.Fatal(err)
	}
}

func (b board) console() string {
	text, err := os.ReadFile(b.m.Console())
	if err != nil {
		return "" // between two starts there is none
	}
	return string(text)
}

// await waits for a state of the whole and shows the console if it never comes.
func (b board) await(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(100 * time.Millisecond) {
		if s := b.m.Status(); time.Now().After(deadline) || s.State == machine.Failed {
			c := b.console()
			b.t.Fatalf("%s: %+v\n%s", what, s, c[max(0, len(c)-6000):])
		}
	}
}

// awaitStart waits until halo-init hands over to gokrazy, and returns what it
// says then.
func (b board) awaitStart(start int, slot string) string {
	b.t.Helper()
	line := regexp.MustCompile(`halo-init: .*msg=started slot=` + slot + ` .*`)
	b.await(fmt.Sprintf("start %d, in slot %s", start, slot), func() bool {
		return b.m.Status().Starts >= start && line.MatchString(b.console())
	})
	if got := b.m.Status().Starts; got != start {
		b.t.Errorf("it took %d starts, want %d", got, start)
	}
	return line.FindString(b.console())
}

func (b board) write(at int64, p []byte) {
	b.t.Helper()
	if _, err := b.d.WriteAt(p, at); err != nil {
		b.t.Fatal(err)
	}
}

func (b board) state() slots.State {
	b.t.Helper()
	s, err := slots.Load(card.SlotState(b.d))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// setSlots makes the card as an update would leave it.
func (b board) setSlots(s slots.State) {
	b.t.Helper()
	if err := slots.Store(card.SlotState(b.d), s); err != nil {
		b.t.Fatal(err)
	}
	b.changeBoot(layout.SlotTXT, func([]byte) []byte { return []byte(layout.SlotLine(byte(s.Active))) })
}

// changeBoot changes a file of the boot partition.
func (b board) changeBoot(name string, change func([]byte) []byte) {
	b.t.Helper()
	boot, err := b.d.OpenBoot(b.t.TempDir())
	if err != nil {
		b.t.Fatal(err)
	}
	defer boot.Close()
	old, err := boot.Read(b.t.Context(), name)
	if err == nil {
		err = boot.Write(b.t.Context(), name, change(bytes.Clone(old)))
	}
	if err = errors.Join(err, boot.Commit()); err != nil {
		b.t.Fatal(err)
	}
}

// place finds where on the card a program of slot A's root begins.
func (b board) place(program string) int64 {
	b.t.Helper()
	root := make([]byte, 100<<20)
	if _, err := b.d.ReadAt(root, layout.RootAStart); err != nil {
		b.t.Fatal(err)
	}
	name := bytes.Index(root, []byte("path\t"+program+"\n")) // of Go's build information
	if name < 0 {
		b.t.Fatalf("%s: not in the root", program)
	}
	return layout.RootAStart + int64(bytes.LastIndex(root[:name], []byte("\x7fELF\x02\x01\x01")))
}

func TestBrokenSlotGivesWay(t *testing.T) {
	junk := bytes.Repeat([]byte("rot!"), 1024)
	for name, tc := range map[string]struct {
		damage func(board)
		reason string
	}{
		"modules image": {func(b board) {
			b.changeBoot("slot-a/"+layout.Modules, func(m []byte) []byte { m[len(m)/2] ^= 1; return m })
		}, "SHA-256"},
		"manifest": {func(b board) {
			b.changeBoot("slot-a/"+layout.Manifest, func(m []byte) []byte { return m[:len(m)/2] })
		}, "slot.json"},
		"first block of the root": {func(b board) { b.write(layout.RootAStart, junk) }, "mount"},
		"init":                    {func(b board) { b.write(b.place("halo.internal/cmd/init")+1<<20, junk) }, "gokrazy/init"},
		"program, found while it runs": {func(b board) {
			b.write(b.place("halo.internal/cmd/halo-mesh")+1<<19, bytes.Repeat(junk, 256))
		}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBoard(t)
			tc.damage(b)
			b.powerOn()
			b.awaitStart(2, "b")
			b.powerCut()
			s := b.state()
			if s.Active != slots.B || !s.Committed || !s.IsBad(slots.A) || s.IsBad(slots.B) {
				t.Errorf("state: %+v, want B active and A bad", s)
			}
			if !strings.Contains(s.Reason, tc.reason) {
				t.Errorf("reason: got %q, want it to say %q", s.Reason, tc.reason)
			}
		})
	}
}

// TestTrialThatIsNeverHealthy gives slot B one try. Nobody calls it healthy:
// after that try, slot A must be back.
func TestTrialThatIsNeverHealthy(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.changeBoot("slot-b/"+layout.Cmdline, func(c []byte) []byte { return append(bytes.TrimSpace(c), " halo.trial_s=1\n"...) })
	b.setSlots(slots.State{Active: slots.B, Tries: 1})
	b.powerOn()
	b.awaitStart(3, "a") // B, B without a try left, A
	b.powerCut()
	if s := b.state(); s.Active != slots.A || !s.IsBad(slots.B) || !s.Committed {
		t.Errorf("state: %+v, want A active and B bad", s)
	}
}

func TestRottenSlotState(t *testing.T) {
	t.Parallel()
	rot := []byte("this sector was something else once")
	b := newBoard(t)
	b.setSlots(slots.State{Active: slots.B, Committed: true, Boots: 7})
	b.write(1<<20, rot)
	b.powerOn()
	b.awaitStart(1, "b")
	b.powerCut()
	if s := b.state(); s.Active != slots.B || s.Boots != 8 {
		t.Errorf("one copy: %+v, want slot B in its 8th start", s)
	}
	b.write(1<<20, rot)
	b.write(2<<20, rot)
	b.powerOn()
	b.awaitStart(2, "b")
	b.powerCut()
	if s := b.state(); s.Active != slots.B || s.Boots != 1 {
		t.Errorf("both copies: %+v, want a new state in the slot that ran", s)
	}
}

// TestPermIsSavedAndMadeAnew ruins the beginning of /perm after a start.
func TestPermIsSavedAndMadeAnew(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.powerOn()
	if line := b.awaitStart(1, "a"); !strings.Contains(line, "perm=ok") {
		t.Errorf("first start: %s", line)
	}
	table, err := card.ReadTable(b.d, b.d.Size())
	if err != nil {
		t.Fatal(err)
	}
	p, ok := table.Partition(4)
	if !ok || p.Start != layout.PermStart || p.Start+p.Size < cardSize-2<<20 {
		t.Errorf("partition 4: got %+v, want it to reach to the end of the card", p)
	}
	vault := card.NewVault(b.d)
	b.await("halo-mesh keeps the identity", func() bool {
		_, err := vault.Get(paths.VaultIdentity)
		return err == nil
	})
	if err := b.m.Reset(t.Context()); err != nil { // the card keeps its power
		t.Fatal(err)
	}
	b.awaitStart(2, "a")
	b.powerCut()
	before, err := vault.Get(paths.VaultIdentity)
	if err != nil {
		t.Fatal(err)
	}

	b.write(layout.PermStart, make([]byte, 64<<10))
	b.powerOn()
	line := b.awaitStart(3, "a")
	if !strings.Contains(line, "perm=remade") {
		t.Errorf("after damage: %s", line)
	}
	if c := b.console(); !regexp.MustCompile(`made anew.*saved [1-9]\d* files`).MatchString(c) {
		t.Errorf("nothing was saved:\n%s", grep(c, "perm"))
	}
	b.powerCut()
	after, err := vault.Get(paths.VaultIdentity)
	if err != nil {
		t.Fatal(err)
	}
	if was, is := node(t, before), node(t, after); was != is {
		t.Errorf("the node was %s and is %s", was, is)
	}
	b.powerOn()
	if line := b.awaitStart(4, "a"); !strings.Contains(line, "perm=ok") {
		t.Errorf("the start after: %s", line)
	}
}

// TestFactoryReset asks for the reset as halo-agent does, and cuts the power in the middle
// of what it does: the device that comes back is another, and only once.
func TestFactoryReset(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	vault := card.NewVault(b.d)
	known := func() string {
		t.Helper()
		b.await("halo-mesh keeps the identity", func() bool {
			_, err := vault.Get(paths.VaultIdentity)
			return err == nil
		})
		value, err := vault.Get(paths.VaultIdentity)
		if err != nil {
			t.Fatal(err)
		}
		return node(t, value)
	}
	b.powerOn()
	b.awaitStart(1, "a")
	first := known()
	b.powerCut()
	if err := card.NewReset(b.d).Ask("a test"); err != nil {
		t.Fatal(err)
	}
	b.powerOn()
	b.await("the reset begins", func() bool { return strings.Contains(b.console(), "factory reset") })
	b.powerCut() // wherever it is
	b.powerOn()
	b.awaitStart(b.m.Status().Starts, "a")
	second := known()
	if second == first {
		t.Errorf("the node is still %s", first)
	}
	b.powerCut()
	if by, err := card.NewReset(b.d).Withdraw(); err != nil || by != "" {
		t.Errorf("the next start would reset again: %q, %v", by, err)
	}
	b.powerOn()
	line := b.awaitStart(b.m.Status().Starts, "a")
	if again := known(); again != second || !strings.Contains(line, "perm=ok") {
		t.Errorf("the start after: %s, %s", again, line)
	}
}

// TestTornSuperblockIsMended leaves one of the two sectors of /perm's superblock
// as a power cut may.
func TestTornSuperblockIsMended(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.powerOn()
	b.awaitStart(1, "a")
	b.powerCut()
	b.write(layout.PermStart+1024+512, bytes.Repeat([]byte{0xa5}, 512))
	b.powerOn()
	if line := b.awaitStart(2, "a"); !strings.Contains(line, "perm=ok") {
		t.Errorf("after the cut: %s", line)
	}
	if c := b.console(); !strings.Contains(c, "torn superblock was put right") {
		t.Errorf("nothing was mended:\n%s", grep(c, "perm"))
	}
}

// TestLastWordsAreShown leaves on the card what a guard writes when the kernel
// falls.
func TestLastWordsAreShown(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	area := card.Crash(b.d)
	if err := area.Store([]byte("<6>[  7.1] usual\n<0>[  7.2] Internal error: Oops: 0000000096000044 [#1] SMP\n")); err != nil {
		t.Fatal(err)
	}
	b.powerOn()
	b.awaitStart(1, "a")
	shown := regexp.MustCompile(`halo-guard: .*fell before this start.* cause="Internal error: Oops: .*file=/perm/halo/crash/crash-000001.txt`)
	b.await("the cause on the console", func() bool { return shown.MatchString(b.console()) })
	b.await("the area is clear for the next fall", func() bool {
		left, err := area.Load()
		return err == nil && len(left) == 0
	})
}

// TestPanicLeavesLastWords starts slot B with a name of the disk that gokrazy
// alone takes: its init gives up, and without an init the kernel panics. What it
// said outlives the resets until slot A, which is back when B has no try left,
// shows and keeps it.
func TestPanicLeavesLastWords(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.changeBoot("slot-b/"+layout.Cmdline, func(c []byte) []byte { return append([]byte("ubd0=PARTUUID=0-0/PARTNROFF=1 "), c...) })
	b.setSlots(slots.State{Active: slots.B, Tries: 1})
	b.powerOn()
	b.awaitStart(3, "a") // B, B without a try left, A
	shown := regexp.MustCompile(`halo-guard: .*fell before this start.* cause="Kernel panic - not syncing: Attempted to kill init!.*file=/perm/halo/crash/crash-000001.txt`)
	b.await("the cause on the console", func() bool { return shown.MatchString(b.console()) })
}

// TestPartitionTableIsRepaired ruins the primary table: the kernel sees no
// partitions then, halo-init finds the disk by the table's copy.
func TestPartitionTableIsRepaired(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.powerOn()
	b.awaitStart(1, "a") // moves the copy to the end of the card
	b.powerCut()
	// Signature and GUIDs stay for the lab's firmware; the checksum does not fit.
	b.write(512, []byte("EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00\xff\xff\xff\xff"))
	b.powerOn()
	b.awaitStart(2, "a")
	b.powerCut()
	table, err := card.ReadTable(b.d, b.d.Size())
	if err != nil || table.FromCopy {
		t.Errorf("table: %v, want the primary to be whole again", err)
	}
}

// node returns the canonical ID that a stored identity stands for.
func node(t *testing.T, stored []byte) string {
	t.Helper()
	s, err := identity.Unmarshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	return s.Key.ID()
}

func grep(text, word string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			out.WriteString(line)
		}
	}
	return out.String()
}
