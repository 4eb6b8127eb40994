package guard

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchdog resets the machine unless it is fed. It has one owner: the device
// can be opened once, and gokrazy, which would feed it come what may, finds it
// taken and goes on without.
type watchdog struct {
	f       *os.File
	name    string
	timeout time.Duration
}

// wantTimeout is asked of the device; some have less, and keep their own.
const wantTimeout = 30 * time.Second

func openWatchdog(path string) (*watchdog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	w := &watchdog{f: f, name: path}
	fd := int(f.Fd())
	if info, err := unix.IoctlGetWatchdogInfo(fd); err == nil {
		w.name = unix.ByteSliceToString(info.Identity[:])
	}
	// A device that refuses keeps the timeout that it reports.
	_ = unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, int(wantTimeout/time.Second))
	s, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT)
	if err != nil || s <= 0 {
		s = 10 // shorter than any that cannot tell
	}
	w.timeout = time.Duration(s) * time.Second
	return w, nil
}

// String names the device for the boot report.
func (w *watchdog) String() string { return fmt.Sprintf("%s, %s", w.name, w.timeout) }

// feed feeds until ctx ends. It never disarms the device.
func (w *watchdog) feed(ctx context.Context) {
	t := time.NewTicker(w.timeout / 5)
	defer t.Stop()
	for {
		// An error leaves the device hungry, which is what it is for.
		_ = unix.IoctlWatchdogKeepalive(int(w.f.Fd()))
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
