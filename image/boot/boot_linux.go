// Package boot is halo-init: the first program that the kernel runs. From the
// initramfs it brings the machine up to where gokrazy's init takes over: it
// loads the drivers of the card, finds the disk that the command line names,
// decides which slot runs, checks and mounts that slot's modules and root,
// mounts /boot and /perm, leaves a guard behind and becomes the new init.
//
// Nothing here may end the machine's life for good. A slot that fails its check
// gives way to the other one, what does not matter for the start is reported
// and passed over, and the rest ends in a restart.
package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/hal/card"
	"halo.internal/hal/module"
	"halo.internal/hal/uevent"
	"halo.internal/image/boot/block"
	"halo.internal/image/boot/choice"
	"halo.internal/image/boot/perm"
	"halo.internal/image/layout"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/update/slots"
)

// Places in the initramfs.
const (
	newRoot = "/newroot"
	fatDir  = "/mnt/boot" // moved to /boot of the new root
	scratch = "/mnt/scratch"
)

// machine is one start of the machine, from step to step.
type machine struct {
	log     *slog.Logger
	cmdline string
	modules *module.Loader
	root    card.Root
	disk    *card.Disk
	flat    bool
	running slots.Slot
	state   slots.State
	keeper  choice.Keeper
	slotTXT int64
	slot    layout.Slot // slot.json
	mapping string      // device mapping of the root, e.g. dm-0
	report  model.BootReport
}

// broken is an error that the other slot may not have.
type broken struct{ err error }

func (b broken) Error() string { return b.err.Error() }
func (b broken) Unwrap() error { return b.err }

// retry is how long a machine without any way to start waits before it tries
// again: long enough to read the console, short enough for a card that needed
// a moment.
const retry = 15 * time.Second

// Run starts the system. It returns only with an error that no restart mends.
func Run(log *slog.Logger) error {
	m := &machine{log: log, report: model.BootReport{Slot: "flat"}}
	err := m.start()
	var slot broken
	if errors.As(err, &slot) && !m.flat {
		m.fallBack(slot.err)
	}
	log.Error("cannot start", "err", err, "retry", retry)
	time.Sleep(retry)
	return restart()
}

func (m *machine) start() error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"kernel interfaces", m.mountKernel},
		{"boot modules", m.loadModules},
		{"disk", m.findDisk},
		{"boot partition", m.mountBoot},
		{"slot", m.chooseSlot},
		{"root", m.mountRoot},
		{"modules image", m.mountModules},
		{"data partition", m.mountPerm},
		{"switch", m.switchRoot}, // does not come back
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		m.report.Phases = append(m.report.Phases, model.BootPhase{Name: step.name, MS: sinceBoot().Milliseconds()})
	}
	return nil
}

// sinceBoot is the time since the kernel started.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// problem notes what went wrong without stopping the start.
func (m *machine) problem(what string, err error) {
	m.log.Error(what, "err", err)
	m.report.Problems = append(m.report.Problems, fmt.Sprintf("%s: %v", what, err))
}

func (m *machine) mountKernel() error {
	for _, d := range []string{newRoot, fatDir, scratch} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	m.cmdline = string(b)
	if m.report.Kernel, err = module.Release(); err != nil {
		return err
	}
	// The kernel asks this program for modules from here on.
	return os.WriteFile("/proc/sys/kernel/modprobe", []byte(layout.Init), 0)
}

func (m *machine) loadModules() error {
	var err error
	dir := filepath.Join(paths.ModulesDir, m.report.Kernel)
	if m.modules, err = module.NewLoader(dir, module.Running{}, module.Params(m.cmdline)); err != nil {
		return err
	}
	b, err := os.ReadFile(layout.BootModules)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(b)) {
		if err := m.modules.Load(name); err != nil {
			m.problem("boot module", err) // what cannot do without it will say so
		}
	}
	if err := m.modules.Coldplug("/sys"); err != nil {
		m.problem("modules of devices", err)
	}
	// A board whose device tree does not reserve memory for the kernel's last
	// words can name it on the command line.
	if strings.Contains(m.cmdline, "ramoops.mem_address=") {
		if err := m.modules.Load("ramoops"); err != nil {
			m.problem("memory for the last words", err)
		}
	}
	// Without hardware to reset the machine, the kernel's own timer at least
	// notices when the guard ends.
	if _, err := os.Stat("/dev/watchdog"); errors.Is(err, fs.ErrNotExist) {
		if err := m.modules.Load("softdog"); err != nil {
			m.log.Warn("no watchdog", "err", err)
		}
	}
	return nil
}

// diskPatience is how long to wait for drivers to find the disk.
const diskPatience = 60 * time.Second

// findDisk waits for the disk, loading the modules of what appears meanwhile.
func (m *machine) findDisk() error {
	var err error
	if m.root, err = card.ParseRoot(m.cmdline); err != nil {
		return err
	}
	events, err := uevent.Listen()
	if err != nil {
		return err
	}
	defer events.Close()
	ctx, cancel := context.WithTimeout(context.Background(), diskPatience)
	defer cancel()
	for {
		m.disk, err = card.Find(m.root.GUID)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		e, evErr := events.Next(ctx)
		if ctx.Err() != nil {
			return err
		}
		if evErr != nil || e.Action() == "add" && e.Modalias() != "" {
			// Devices seldom come alone.
			if err := m.modules.Coldplug("/sys"); err != nil {
				m.problem("modules of devices", err)
			}
		}
	}
	m.preferSlot(ctx, events)
	m.report.Disk = m.disk.Name
	if err := m.repairTable(); err != nil {
		m.problem("partition table", err)
	}
	return m.awaitNode(ctx, events, m.disk.Node(m.root.Partition))
}

// slotPatience is how long a disk elsewhere waits for one like it in the SD slot.
const slotPatience = 3 * time.Second

// preferSlot gives the SD slot of a board the time to show its card, when a disk
// elsewhere was found first: it may be a copy in a reader, and the firmware, which
// has read kernel and slot choice from the card, tries the slot before USB.
func (m *machine) preferSlot(ctx context.Context, events *uevent.Listener) {
	hosts, err := filepath.Glob("/sys/class/mmc_host/*")
	if err != nil || len(hosts) == 0 || card.InSlot(m.disk.Name) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, slotPatience)
	defer cancel()
	for {
		e, err := events.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil || e.Action() == "add" && e.Modalias() != "" {
			if err := m.modules.Coldplug("/sys"); err != nil {
				m.problem("modules of devices", err)
			}
		}
		d, err := card.Find(m.root.GUID)
		if err != nil {
			continue
		}
		if !card.InSlot(d.Name) {
			_ = d.Close() // nothing was written
			continue
		}
		_ = m.disk.Close() // nothing was written
		m.disk = d
		return
	}
}

// awaitNode waits for a partition's node.
func (m *machine) awaitNode(ctx context.Context, events *uevent.Listener, node string) error {
	for {
		if _, err := os.Stat(node); err == nil {
			return nil
		}
		if _, err := events.Next(ctx); ctx.Err() != nil {
			return fmt.Errorf("%s: expected it within %s: %w", node, diskPatience, err)
		}
	}
}

// repairTable puts a damaged partition table right from its copy and lets the
// data partition reach to the end of the card.
func (m *machine) repairTable() error {
	t := m.disk.Table
	wasDamaged := t.FromCopy
	p, grown, err := t.Grow(permPartition, m.disk.Size)
	if err != nil {
		return err
	}
	if !grown && !wasDamaged {
		return nil
	}
	if err := t.Write(m.disk); err != nil {
		return err
	}
	if wasDamaged {
		m.log.Warn("partition table was repaired from its copy")
		return block.RereadPartitions(m.disk.Fd())
	}
	return block.ResizePartition(m.disk.Fd(), permPartition, p.Start, p.Size)
}

const (
	bootPartition = 1
	permPartition = 4
)

// mountBoot mounts the boot FAT. It may hold secrets until they are imported.
func (m *machine) mountBoot() error {
	node := m.disk.Node(bootPartition)
	if err := unix.Mount(node, fatDir, "vfat", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "umask=0077,flush,errors=remount-ro"); err != nil {
		return fmt.Errorf("mount %s: %w", node, err)
	}
	return nil
}

// mountPerm brings up the data partition.
func (m *machine) mountPerm() error {
	p, ok := m.disk.Table.Partition(permPartition)
	if !ok {
		return fmt.Errorf("partition %d: not in the table", permPartition)
	}
	m.report.Perm = perm.Volume{
		Forgotten: m.beginReset(p.Start, p.Size),
		Device:    m.disk.Node(permPartition), Size: p.Size, Target: filepath.Join(newRoot, paths.Perm),
		Scratch: scratch, Template: layout.PermTemplate, SaveMax: ramToSave(), Log: m.log, Superblocks: card.Superblock(m.disk),
	}.Mount()
	return nil
}

// beginReset takes away what the card has of the device beside the file system, where a
// factory reset was asked for. It returns what ends that once nothing of the file system
// is left either; nil: nobody has asked for one, or the device goes on as it was.
func (m *machine) beginReset(start, size int64) (done func() error) {
	reset := card.NewReset(m.disk)
	by, err := reset.Begin(card.NewVault(m.disk))
	if err != nil {
		m.problem("factory reset", err)
	}
	if by == "" {
		return nil
	}
	m.log.Warn("factory reset: the device forgets its identity, its network and all that it has stored", "by", by)
	m.report.Reset = by
	if err := block.Discard(int(m.disk.Fd()), start, size); err != nil {
		m.log.Info("the card does not forget by itself: what was on it goes as it is overwritten", "err", err)
	}
	return reset.Done
}

// ramToSave is how much of a ruined /perm may be kept in RAM: an eighth of it.
func ramToSave() int64 {
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return 16 << 20
	}
	return int64(i.Totalram) * int64(i.Unit) / 8
}

// switchRoot leaves the guard behind and becomes the system's init.
func (m *machine) switchRoot() error {
	const next = "/gokrazy/init"
	// Read whole, so that a block that rots in it is found while there is
	// still a way back.
	if err := readThrough(filepath.Join(newRoot, next)); err != nil {
		return broken{err}
	}
	g, err := m.leaveGuard()
	if err != nil {
		return err
	}
	m.logPhases()
	for _, d := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(d, filepath.Join(newRoot, d), "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", d, err)
		}
	}
	if err := m.moveBoot(); err != nil {
		m.log.Error("/boot", "err", err) // in the report already: see checkBoot
	}
	// Give the memory back; the guard's program stays.
	for _, p := range []string{paths.ModulesDir, layout.PermTemplate, layout.BootModules} {
		if err := os.RemoveAll(p); err != nil {
			m.log.Warn("initramfs", "err", err)
		}
	}
	if err := errors.Join(unix.Chdir(newRoot), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	err = unix.Exec(next, []string{next}, os.Environ())
	g.Close()
	return broken{fmt.Errorf("%s: %w", next, err)}
}

func (m *machine) logPhases() {
	args := []any{"slot", m.report.Slot, "perm", m.report.Perm.State, "modules", m.modules.Count()}
	for _, p := range m.report.Phases {
		args = append(args, strings.ReplaceAll(p.Name, " ", "_"), p.MS)
	}
	m.log.Info("started", append(args, "switch", sinceBoot().Milliseconds())...)
}

func restart() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
