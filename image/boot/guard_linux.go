package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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
	_, err = syscall.ForkExec(layout.Init, []string{GuardName}, &syscall.ProcAttr{
		Files: []uintptr{orderIn.Fd(), answerOut.Fd(), os.Stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err = errors.Join(err, orderIn.Close(), answerOut.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard: %w", err), orderOut.Close())
	}
	if err := m.instruct(orderOut, answerIn); err != nil {
		return nil, errors.Join(fmt.Errorf("guard: %w", err), orderOut.Close())
	}
	return orderOut, nil
}

func (m *machine) instruct(to io.Writer, from *os.File) error {
	order := guard.Order{
		Report: m.report, NewRoot: newRoot, GUID: m.root.GUID, SlotTXT: m.slotTXT,
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
