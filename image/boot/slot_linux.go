package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/image/boot/block"
	"halo.internal/image/boot/choice"
	"halo.internal/image/boot/guard"
	"halo.internal/image/layout"
	"halo.internal/model/paths"
	"halo.internal/update/slots"
)

// chooseSlot takes this start's step in the state of the slots. When that says
// so, it restarts the machine into the other slot and does not come back.
func (m *machine) chooseSlot() error {
	name, ok := option(m.cmdline, "halo.slot")
	if !ok {
		m.flat = true
		return nil
	}
	var err error
	if m.running, err = slots.Parse(name); err != nil {
		return fmt.Errorf("halo.slot: %w", err)
	}
	m.report.Slot = m.running.String()
	m.keeper = choice.Keeper{Disk: m.disk, SlotTXT: m.placeOfSlotTXT}
	if m.state, err = m.keeper.Load(m.running); err != nil {
		m.problem("slot state", err)
	}
	written, err := m.keeper.Written()
	if err != nil {
		m.problem("slot choice", err)
		written = m.state.Active // it cannot be told better
	}
	next, again := m.state.Boot(m.running, written)
	if err := m.keeper.Store(next); err != nil {
		m.problem("slot choice", err)
		again = false // it would not lead elsewhere
	}
	m.state = next
	if again {
		m.log.Warn("restart into the other slot", "slot", next.Active.String(), "reason", next.Reason)
		return restart()
	}
	m.report.Committed, m.report.Tries, m.report.Boots = next.Committed, next.Tries, next.Boots
	m.report.BadSlots, m.report.SlotReason = guard.BadSlots(next), next.Reason
	return m.readManifest()
}

// placeOfSlotTXT finds the sector of slot.txt, once.
func (m *machine) placeOfSlotTXT() (int64, error) {
	if m.slotTXT != 0 {
		return m.slotTXT, nil
	}
	f, err := os.Open(filepath.Join(fatDir, layout.SlotTXT))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	at, err := block.FirstSector(int(f.Fd()))
	if err != nil {
		return 0, err
	}
	p, ok := m.disk.Table.Partition(bootPartition)
	if !ok {
		return 0, fmt.Errorf("partition %d: not in the table", bootPartition)
	}
	m.slotTXT = p.Start + at
	return m.slotTXT, nil
}

func (m *machine) slotFile(name string) string {
	return filepath.Join(fatDir, layout.SlotDir(byte(m.running)), name)
}

func (m *machine) readManifest() error {
	b, err := readBounded(m.slotFile(layout.Manifest), layout.MaxManifest)
	if err != nil {
		return broken{err}
	}
	if m.slot, err = layout.ParseSlot(b); err != nil {
		return broken{err}
	}
	if m.slot.KernelRelease != m.report.Kernel {
		return broken{fmt.Errorf("%s: expected kernel %s, %s runs", layout.Manifest, m.slot.KernelRelease, m.report.Kernel)}
	}
	m.report.Version, m.report.Board = m.slot.Version, m.slot.Board
	return nil
}

// fallBack gives the running slot up and restarts into the other one. When that
// one is bad too, it is tried all the same, after a while: the error may have
// been a mood of the card.
func (m *machine) fallBack(reason error) {
	next, ok := m.state.Fail(m.running, reason.Error())
	if !ok {
		next = next.Switch(m.running.Other(), fmt.Sprintf("slot %s: %v; both are bad", m.running, reason))
	}
	m.log.Error("slot is broken", "slot", m.running.String(), "err", reason, "next", next.Active.String())
	if err := m.keeper.Store(next); err != nil {
		m.log.Error("slot choice", "err", err)
		ok = false
	}
	if !ok {
		time.Sleep(retry)
	}
	if err := restart(); err != nil {
		m.log.Error("restart", "err", err)
	}
}

// mountRoot mounts the root read-only: through dm-verity in a slot, plainly in
// a flat image.
func (m *machine) mountRoot() error {
	node := m.disk.Node(m.root.Partition)
	if !m.flat {
		r := m.slot.Root
		var err error
		if node, err = (block.Verity{Device: node, DataSize: r.Size, BlockSize: layout.BlockSize, Hash: r.Hash, Salt: r.Salt}).Open("root"); err != nil {
			return broken{err}
		}
		m.mapping, m.report.Verity = filepath.Base(node), true
	}
	if err := unix.Mount(node, newRoot, "squashfs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return broken{fmt.Errorf("mount %s: %w", node, err)}
	}
	return m.checkBoot()
}

// checkBoot reports a root that has no place for /boot.
func (m *machine) checkBoot() error {
	if _, err := os.Stat(filepath.Join(newRoot, paths.Boot)); err != nil {
		m.problem("/boot is not mounted", err)
	}
	return nil
}

func (m *machine) moveBoot() error {
	return unix.Mount(fatDir, filepath.Join(newRoot, paths.Boot), "", unix.MS_MOVE, "")
}

// mountModules checks the slot's modules image and mounts it over the root's
// /lib/modules, so that a kernel never meets the modules of another one.
func (m *machine) mountModules() error {
	if m.flat {
		return nil
	}
	f, err := os.Open(m.slotFile(layout.Modules))
	if err != nil {
		return broken{err}
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, f); err != nil {
		return broken{err}
	} else if n != m.slot.ModulesSize {
		return broken{fmt.Errorf("%s: expected %d octets, got %d", layout.Modules, m.slot.ModulesSize, n)}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != m.slot.ModulesSHA256 {
		return broken{fmt.Errorf("%s: expected SHA-256 %s, got %s", layout.Modules, m.slot.ModulesSHA256, got)}
	}
	loop, err := block.Loop(f)
	if err != nil {
		return broken{err}
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), filepath.Join(newRoot, paths.ModulesDir), "squashfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return broken{fmt.Errorf("mount %s: %w", layout.Modules, err)}
	}
	return nil
}

// readBounded reads a file of at most max octets.
func readBounded(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = fmt.Errorf("%s: expected at most %d octets", path, max)
	}
	return b, err
}

// readThrough reads a whole file for its errors.
func readThrough(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}
