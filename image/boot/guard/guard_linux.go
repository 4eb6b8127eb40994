// Package guard is the process that halo-init leaves behind when it becomes
// gokrazy's init. It lives in the initramfs, in memory, so that it outlasts
// whatever happens to the card, and it holds what must not hang on the system
// that it watches: the watchdog, the timer of a slot on trial, the eye on a
// root that rots, the last words of a falling kernel. For the machine's life
// it also loads the modules of devices that are plugged in.
package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"halo.internal/hal/card"
	"halo.internal/hal/module"
	"halo.internal/hal/uevent"
	"halo.internal/image/boot/choice"
	"halo.internal/model"
	"halo.internal/update/slots"
)

// Order is what halo-init tells its guard once it knows the system, as JSON on
// the guard's standard input. The end of that input is the sign that gokrazy's
// init runs.
type Order struct {
	Report  model.BootReport
	NewRoot string        // where the system is mounted, as seen from the initramfs
	GUID    string        // of the disk's first partition
	Disk    string        // name of the disk: others may have the GUID too
	SlotTXT int64         // place of slot.txt on the disk, octets; 0 in a flat image
	Root    string        // name of the root's device mapping, e.g. dm-0; empty without verity
	Perm    string        // node of the data partition
	Trial   time.Duration // within which a slot on trial must be healthy; 0: it is committed
}

// Ready is what the guard answers on its standard output to an order.
const Ready = "ready\n"

// bootLimit is how long halo-init may take before the watchdog is let loose on
// it: a journal to replay and a card to grow, on a slow card, are within it.
const bootLimit = 5 * time.Minute

// Guard is the running guard.
type Guard struct {
	log    *slog.Logger
	disk   *card.Disk
	keeper choice.Keeper
	events *uevent.Listener
	order  Order
	wd     *watchdog

	mu     sync.Mutex // guards report and the card's choice of slot
	report model.BootReport

	healthy chan struct{} // closed when this start was called healthy
}

// Run is the guard's life. It returns only when it cannot do its work.
func Run(ctx context.Context, log *slog.Logger) error {
	// The system runs out of memory by its own fault, never by losing this.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		log.Warn("guard may be chosen when memory runs out", "err", err)
	}
	g := &Guard{log: log, healthy: make(chan struct{})}
	wd, err := openWatchdog("/dev/watchdog")
	if err != nil {
		log.Warn("no watchdog: a machine that hangs will not come back by itself", "err", err)
	}
	g.wd = wd
	// Until the switch, the watchdog is fed for a limited time.
	early, stopEarly := context.WithTimeout(ctx, bootLimit)
	defer stopEarly()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		if wd != nil {
			wd.feed(early)
		}
	}()
	if err := g.takeOrder(os.Stdin, os.Stdout); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		<-fed
		if errors.Is(early.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("halo-init did not end within %s", bootLimit)
		}
		if wd != nil {
			wd.feed(ctx)
		}
		return nil
	})
	plugged, disks := make(chan string, 1024), make(chan diskChange, 64)
	group.Go(func() error { return g.watchDevices(ctx, plugged, disks) })
	if err := waitExec(os.Stdin); err != nil {
		return err
	}
	stopEarly() // hands the feeding over
	if err := g.enter(); err != nil {
		return err
	}
	group.Go(func() error { return g.plug(ctx, plugged) })
	group.Go(func() error { return g.tellTwins(ctx, disks) })
	group.Go(func() error { return g.watchKernel(ctx) })
	group.Go(func() error { return g.serve(ctx) })
	group.Go(func() error { return g.holdTrial(ctx) })
	group.Go(func() error { return g.watchPerm(ctx) })
	return group.Wait()
}

// takeOrder reads the order and makes ready for the switch.
func (g *Guard) takeOrder(in io.Reader, out io.Writer) error {
	if err := json.NewDecoder(in).Decode(&g.order); err != nil {
		return fmt.Errorf("order from halo-init: %w", err)
	}
	g.report = g.order.Report
	if g.wd != nil {
		g.report.Watchdog = g.wd.String()
	}
	var err error
	if g.disk, err = card.Open(g.order.Disk, g.order.GUID); err != nil {
		return err
	}
	g.keeper = choice.Keeper{Disk: g.disk, SlotTXT: func() (int64, error) {
		if g.order.SlotTXT == 0 {
			return 0, errors.New("this image has none")
		}
		return g.order.SlotTXT, nil
	}}
	if g.events, err = uevent.Listen(); err != nil {
		return err
	}
	// The mount stays the same when halo-init moves it; the path does not.
	if err := os.Chdir(g.order.NewRoot); err != nil {
		return err
	}
	// The kernel calls this program when it wants a module. The link leads
	// into the initramfs, which no path does after the switch.
	helper := "/proc/" + strconv.Itoa(os.Getpid()) + "/exe"
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte(helper), 0); err != nil {
		return err
	}
	_, err = io.WriteString(out, Ready)
	return err
}

// waitExec waits for the end of the order's pipe, whose other end closes when
// halo-init becomes gokrazy's init.
func waitExec(in io.Reader) error {
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("wait for the switch: %w", err)
	}
	return nil
}

// enter moves the guard into the system.
func (g *Guard) enter() error {
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the system: %w", err)
	}
	if g.report.Perm.State == model.PermVolatile {
		// gokrazy would mount the partition over the RAM that stands in for
		// it, should it happen to work now. Held here, it cannot.
		fd, err := unix.Open(g.order.Perm, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			g.log.Warn("cannot hold the data partition", "err", err)
		}
		_ = fd // held for the life of the process
	}
	return os.Chdir("/")
}

// watchDevices reads the kernel's device events from before the switch on.
func (g *Guard) watchDevices(ctx context.Context, plugged chan<- string, disks chan<- diskChange) error {
	for {
		e, err := g.events.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, uevent.ErrLost):
			e = uevent.Event{"ACTION": "add", "MODALIAS": lookAgain}
		case err != nil:
			return err
		}
		if bad := e["DM_VERITY_ERR_BLOCK_NR"]; bad != "" && e["DEVNAME"] == g.order.Root && g.order.Root != "" {
			g.rootRots(bad)
			continue
		}
		if a := e.Action(); e["DEVTYPE"] == "disk" && (a == "add" || a == "remove") {
			select {
			case disks <- diskChange{e["DEVNAME"], a == "remove"}:
			default: // more than anybody plugs in at once
			}
		}
		if e.Action() == "add" && e.Modalias() != "" {
			select {
			case plugged <- e.Modalias():
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// lookAgain stands among the aliases for "some were lost".
const lookAgain = ""

// plug loads modules: first for all devices there are, then for each that
// comes.
func (g *Guard) plug(ctx context.Context, plugged <-chan string) error {
	modules, err := module.Own()
	if err != nil {
		g.problem("no modules for this kernel", err)
		return nil // the boot modules are loaded; the machine may be reachable
	}
	alias, first := lookAgain, true
	for {
		if alias == lookAgain {
			err = modules.Coldplug("/sys")
		} else if err = modules.Load(alias); errors.Is(err, module.ErrUnknown) {
			err = nil
		}
		if err != nil {
			g.log.Error("modules would not load", "err", err)
		}
		if first {
			g.log.Info("modules for the devices there are", "loaded", modules.Count())
			first = false
		}
		select {
		case alias = <-plugged:
		case <-ctx.Done():
			return nil
		}
	}
}

// rootRots gives the running slot up: a block of its root is not what was
// written.
func (g *Guard) rootRots(block string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	reason := "block " + block + " of the root is damaged"
	running, err := slots.Parse(g.report.Slot)
	if err != nil {
		return // a flat image has no verity
	}
	s, err := g.keeper.Load(running)
	if err != nil {
		g.log.Error("slot state", "err", err)
	}
	if s.IsBad(running) {
		return // said before; there is nothing better to run
	}
	next, ok := s.Fail(running, reason)
	if err := g.keeper.Store(next); err != nil {
		g.log.Error("slot state", "err", err)
		ok = false
	}
	g.log.Error("root is damaged", "slot", running.String(), "block", block, "fallback", ok)
	if ok {
		g.restart(reason)
	}
	g.report.Problems = append(g.report.Problems, reason+"; the other slot is bad too")
	g.report.BadSlots = []string{slots.A.String(), slots.B.String()}
	g.write()
}

// syncPatience is how long a restart waits for the disks: a kernel that is
// about to fall may never finish.
const syncPatience = 5 * time.Second

// restart starts the machine anew. It does not return.
func (g *Guard) restart(reason string) {
	g.log.Error("restart", "reason", reason)
	done := make(chan struct{})
	go func() { unix.Sync(); close(done) }()
	select {
	case <-done:
	case <-time.After(syncPatience):
	}
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	// Not reached unless it failed; then the watchdog starves with this process.
	g.log.Error("restart failed", "err", err)
	os.Exit(1)
}
