package gps

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pps is a source of pulses as the kernel has it (RFC 2783, /dev/pps*).
type pps struct {
	f    *os.File
	name string
}

// openPPS opens the first source of pulses below root; nil: there is none.
func openPPS(root string) *pps {
	names, err := filepath.Glob(filepath.Join(root, "dev/pps[0-9]*"))
	if err != nil {
		return nil
	}
	for _, name := range names {
		if f, err := os.OpenFile(name, os.O_RDWR, 0); err == nil {
			return &pps{f, name}
		}
	}
	return nil
}

// fetch returns number and time of the last pulse, by the system clock. It does not wait for
// one.
func (p *pps) fetch() (seq uint32, at time.Time, err error) {
	var d unix.PPSFData // a timeout of zero
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, p.f.Fd(), unix.PPS_FETCH, uintptr(unsafe.Pointer(&d))); errno != 0 {
		return 0, time.Time{}, fmt.Errorf("pulses of %s: %w", p.name, errno)
	}
	return d.Info.Assert_sequence, time.Unix(d.Info.Assert_tu.Sec, int64(d.Info.Assert_tu.Nsec)), nil
}

func (p *pps) close() error { return p.f.Close() }
