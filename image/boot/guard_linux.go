package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"halo.internal/image/boot/guard"
	"halo.internal/image/layout"
)

// GuardName is what the guard is called by, and how this program knows that it
// is to be the guard.
const GuardName = "halo-guard"

// guardPatience is how long the guard may take to get ready.
const guardPatience = 20 * time.Second

// leaveGuard starts the guard and waits until it is ready. What it returns
// must stay open: its end, at the exec of the next init, is the guard's sign.
func (m *machine) leaveGuard() (io.Closer, error) {
	orderIn, orderOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answerIn, answerOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, orderIn.Close(), orderOut.Close())
	}
	defer answerIn.Close()
	err = m.startGuard([]uintptr{orderIn.Fd(), answerOut.Fd(), os.Stderr.Fd()})
	if err = errors.Join(err, orderIn.Close(), answerOut.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard: %w", err), orderOut.Close())
	}
	if err := m.instruct(orderOut, answerIn); err != nil {
		return nil, errors.Join(fmt.Errorf("guard: %w", err), orderOut.Close())
	}
	return orderOut, nil
}

// guardNice puts the guard before all that it guards: a busy system must not
// starve the one who feeds the watchdog, and waits for the modules it loads.
const guardNice = -10

func (m *machine) startGuard(files []uintptr) error {
	// A child inherits the niceness of the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, guardNice); err != nil {
		m.problem("guard's priority", err)
	}
	_, err := syscall.ForkExec(layout.Init, []string{GuardName}, &syscall.ProcAttr{
		Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	return errors.Join(err, syscall.Setpriority(syscall.PRIO_PROCESS, 0, 0))
}

func (m *machine) instruct(to io.Writer, from *os.File) error {
	order := guard.Order{
		Report: m.report, NewRoot: newRoot, GUID: m.root.GUID, Disk: m.disk.Name, SlotTXT: m.slotTXT,
		Root: m.mapping, Perm: m.disk.Node(permPartition),
	}
	if !m.flat && !m.state.Committed {
		order.Trial = trial(m.cmdline)
	}
	if err := json.NewEncoder(to).Encode(order); err != nil {
		return err
	}
	if err := from.SetReadDeadline(time.Now().Add(guardPatience)); err != nil {
		return err
	}
	b := make([]byte, len(guard.Ready))
	if _, err := io.ReadFull(from, b); err != nil || string(b) != guard.Ready {
		return fmt.Errorf("expected %q, got %q: %w", guard.Ready, b, err)
	}
	return nil
}
