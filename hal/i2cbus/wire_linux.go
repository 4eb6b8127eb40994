package i2cbus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's interface for programs: include/uapi/linux/i2c-dev.h and i2c.h.
const (
	ioctlTimeout = 0x702 // in units of 10 ms
	ioctlSlave   = 0x703
	ioctlFuncs   = 0x705
	ioctlRdwr    = 0x707
	ioctlSMBus   = 0x720

	funcQuick = 0x00010000
	readFlag  = 1
	kernelMS  = 1000 // before the driver gives up: ours is later
)

type message struct {
	addr, flags, length uint16
	buf                 unsafe.Pointer
}

type transfer struct {
	messages unsafe.Pointer
	n        uint32
}

type smbus struct {
	write, command uint8
	size           uint32
	data           unsafe.Pointer
}

type wire struct {
	f     *os.File
	funcs uint64
}

func openWire(b Info, dev string) (Wire, error) {
	name := filepath.Join(dev, fmt.Sprintf("i2c-%d", b.Number))
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("i2c bus %s: expected %s: is the module %s loaded?", b.Path, name, Module)
	}
	if err != nil {
		return nil, fmt.Errorf("i2c bus %s: %w", b.Path, err)
	}
	w := &wire{f: f}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlFuncs, uintptr(unsafe.Pointer(&w.funcs))); e != 0 {
		return nil, errors.Join(fmt.Errorf("i2c bus %s: %w", b.Path, e), f.Close())
	}
	_ = w.ioctl(ioctlTimeout, kernelMS/10) // drivers that have none of their own keep the kernel's
	return w, nil
}

func (w *wire) ioctl(request, arg uintptr) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, w.f.Fd(), request, arg); e != 0 {
		return e
	}
	return nil
}

func (w *wire) Transfer(addr uint16, out, in []byte) error {
	var list [2]message
	n := 0
	if len(out) > 0 {
		list[n] = message{addr, 0, uint16(len(out)), unsafe.Pointer(&out[0])}
		n++
	}
	if len(in) > 0 {
		list[n] = message{addr, readFlag, uint16(len(in)), unsafe.Pointer(&in[0])}
		n++
	}
	t := &transfer{unsafe.Pointer(&list[0]), uint32(n)}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, w.f.Fd(), ioctlRdwr, uintptr(unsafe.Pointer(t)))
	runtime.KeepAlive(&list)
	runtime.KeepAlive(out)
	runtime.KeepAlive(in)
	if e != 0 {
		return e
	}
	return nil
}

func (w *wire) Quick(addr uint16) error {
	if w.funcs&funcQuick == 0 {
		return syscall.EOPNOTSUPP
	}
	if err := w.ioctl(ioctlSlave, uintptr(addr)); err != nil {
		return err // EBUSY: a driver has just taken it
	}
	q := &smbus{} // write, no data
	_, _, e := unix.Syscall(unix.SYS_IOCTL, w.f.Fd(), ioctlSMBus, uintptr(unsafe.Pointer(q)))
	if e != 0 {
		return e
	}
	return nil
}

func (w *wire) Close() error { return w.f.Close() }
