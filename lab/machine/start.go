package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/lab/air/link"
)

const (
	consoleName  = "console.log"
	consolesKept = 9 // of earlier starts
)

// start runs QEMU once and tells how that ended. An error means that the
// machine did not run as it should.
func (m *Machine) start(ctx context.Context, p *power) (end string, err error) {
	boot, err := m.firmware(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return endCut, nil
		}
		return "", fmt.Errorf("firmware: %w", err)
	}
	if err := m.rotateConsole(); err != nil {
		return "", err
	}
	var w wires
	defer w.close()
	args, err := m.arguments(boot, &w)
	if err != nil {
		return "", err
	}
	program, err := exec.LookPath("qemu-system-aarch64")
	if err != nil {
		return "", fmt.Errorf("%w; on Debian: apt-get install qemu-system-arm", err)
	}
	cmd := exec.Command(program, args...)
	cmd.ExtraFiles = w.theirs
	cmd.SysProcAttr = OwnChild()
	var stderr tail
	cmd.Stdout, cmd.Stderr = &stderr, &stderr
	if err := cmd.Start(); err != nil {
		return "", err
	}
	w.closeTheirs()
	if err := writePID(m.pidFile(), cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return "", errors.Join(err, cmd.Wait())
	}
	defer os.Remove(m.pidFile())

	var served sync.WaitGroup
	q := newQMP(w.qmp)
	served.Go(q.read)
	served.Go(func() {
		if err := m.cfg.Disk.Serve(w.disk); err != nil && !errors.Is(err, net.ErrClosed) {
			m.cfg.Log.Warn("card is dead", "node", m.cfg.Name, "err", err)
		}
	})
	// What it shows is in the log. Nobody reading it here would hold the machine up.
	served.Go(func() { _, _ = io.Copy(io.Discard, w.console) })
	m.started(p, q, w.console, cmd.Process.Pid, boot.slot)
	p.once.Do(func() { close(p.begun) })
	for i, n := range m.cfg.NICs {
		if n.Plug != nil {
			err = errors.Join(err, n.Plug(w.cables[i]))
			w.cables[i] = nil // it is the switch's now
		}
	}

	if m.cfg.Air != nil {
		err = errors.Join(err, m.cfg.Air(w.air))
		w.air = nil // it is the air's now
	}
	for i, part := range m.cfg.Parts {
		err = errors.Join(err, part.Plug(w.parts[i]))
		w.parts[i] = nil
	}

	exited := make(chan struct{})
	served.Go(func() {
		select {
		case <-ctx.Done():
		case <-exited:
		}
		// A reset leaves no child behind either. The group is ours alone.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	waited := cmd.Wait()
	close(exited)
	<-q.gone // it has read QEMU's last words
	w.close()
	served.Wait()
	m.stopped(p, cmd.ProcessState)
	if ctx.Err() != nil {
		lost, cutErr := m.cfg.Disk.Cut()
		m.cfg.Log.Info("power cut", "node", m.cfg.Name, "lost_sectors", lost)
		return endCut, errors.Join(err, cutErr)
	}
	end = q.end()
	if waited != nil || end == "" {
		return end, fmt.Errorf("QEMU ended by itself: %v: %s", cmd.ProcessState, strings.TrimSpace(stderr.String()))
	}
	return end, errors.Join(err, m.cfg.Disk.Unplug())
}

func (m *Machine) started(p *power, q *qmp, console io.Writer, pid int, slot string) {
	m.mu.Lock()
	p.qmp, p.console = q, console
	m.status.State, m.status.PID, m.status.Slot, m.status.Started = Running, pid, slot, time.Now()
	m.status.Starts++
	n := m.status.Starts
	m.mu.Unlock()
	m.cfg.Log.Info("machine starts", "node", m.cfg.Name, "start", n, "slot", slot)
	m.notify()
}

func (m *Machine) stopped(p *power, s *os.ProcessState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.qmp, p.console = nil, nil
	m.status.PID = 0
	m.status.CPU += s.UserTime() + s.SystemTime()
}

// arguments makes QEMU's command line and the wires that it names.
func (m *Machine) arguments(b bootFiles, w *wires) ([]string, error) {
	qmpFD, err := w.add(&w.qmp)
	if err != nil {
		return nil, err
	}
	diskFD, err := w.add(&w.disk)
	if err != nil {
		return nil, err
	}
	consoleFD, err := w.add(&w.console)
	if err != nil {
		return nil, err
	}
	rtc := "base=1970-01-01T00:00:00"
	m.mu.Lock()
	clock, ahead := m.cfg.Clock, m.cfg.Ahead
	m.mu.Unlock()
	switch {
	case clock && ahead != 0:
		rtc = "base=" + time.Now().Add(ahead).UTC().Format("2006-01-02T15:04:05")
	case clock:
		rtc = "base=utc"
	}
	args := []string{
		"-name", m.cfg.Name, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-rtc", rtc,
		"-kernel", b.kernel, "-initrd", b.initrd,
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d,logfile=%s", consoleFD, comma(m.Console())),
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", qmpFD), "-mon", "chardev=qmp,mode=control",
		"-action", "watchdog=reset",
	}
	if m.cfg.Pi {
		return append(args, pi(b, diskFD)...), nil
	}
	processor, parameters := Accelerator()
	if m.cfg.Camera {
		parameters += " vivid.n_devs=1 vivid.node_types=0x1" // one that captures, and nothing else
	}
	memory, reserved := m.memory()
	args = append(args,
		"-M", "virt", "-smp", strconv.Itoa(max(1, m.cfg.CPUs)),
		"-append", strings.TrimSpace(b.cmdline+" "+reserved+" "+parameters),
		"-serial", "chardev:console",
		"-blockdev", fmt.Sprintf("driver=nbd,node-name=card,server.type=fd,server.str=%d", diskFD),
		"-device", "virtio-blk-pci,drive=card,romfile=",
		"-device", "virtio-rng-pci,romfile=", "-device", "i6300esb",
	)
	args = append(args, memory...)
	args = append(args, processor...)
	w.cables = make([]net.Conn, len(m.cfg.NICs))
	for i, n := range m.cfg.NICs {
		var dev string
		if n.Plug != nil {
			fd, err := w.add(&w.cables[i])
			if err != nil {
				return nil, err
			}
			dev = fmt.Sprintf("stream,id=net%d,server=off,addr.type=fd,addr.str=%d", i, fd)
		} else {
			// restrict: the guest reaches nothing beyond; forwarded ports work all the same.
			dev = fmt.Sprintf("user,id=net%d,restrict=on", i)
			for _, f := range n.Forwards {
				dev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
			}
		}
		args = append(args, "-netdev", dev, "-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,mac=%s,romfile=", i, n.MAC))
	}
	if m.cfg.Air != nil {
		fd, err := w.add(&w.air)
		if err != nil {
			return nil, err
		}
		args = append(args, "-chardev", fmt.Sprintf("socket,id=air,fd=%d", fd),
			"-device", "virtio-serial-pci,romfile=", "-device", "virtserialport,chardev=air,name="+link.Port)
	}
	w.parts = make([]net.Conn, len(m.cfg.Parts))
	for i, part := range m.cfg.Parts {
		fd, err := w.add(&w.parts[i])
		if err != nil {
			return nil, err
		}
		args = append(args, part.Arguments(i, fd)...)
	}
	return args, nil
}

// Arguments are QEMU's options for the part, the n-th of its machine, whose wire is a
// descriptor.
func (p Part) Arguments(n, fd int) []string {
	name, options, _ := strings.Cut(p.Device, ",")
	device := fmt.Sprintf("%s,chardev=part%d", name, n)
	if options != "" {
		device += "," + options
	}
	args := []string{"-chardev", fmt.Sprintf("socket,id=part%d,fd=%d", n, fd)}
	if p.Bus != "" {
		args = append(args, "-device", p.Bus)
	}
	return append(args, "-device", device)
}

// pi are QEMU's options for a Raspberry Pi 3B. Its watchdog is left alone, for QEMU (7.2,
// hw/misc/bcm2835_powermgt.c) resets the machine as soon as one starts it.
func pi(b bootFiles, diskFD int) []string {
	return []string{
		"-M", "raspi3b", "-m", "1024", "-smp", "4", "-accel", "tcg", "-dtb", b.tree, "-append", b.cmdline + " module_blacklist=bcm2835_wdt",
		"-serial", "null", "-serial", "chardev:console", // the first one is Bluetooth's
		"-drive", fmt.Sprintf("if=sd,format=raw,file.driver=nbd,file.server.type=fd,file.server.str=%d", diskFD),
	}
}

// comma doubles commas, which separate QEMU's options.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// wires are the socket pairs between us and one QEMU.
type wires struct {
	qmp, disk net.Conn
	console   net.Conn
	air       net.Conn   // nil where there is none
	cables    []net.Conn // by NIC; nil where there is none
	parts     []net.Conn // by part
	theirs    []*os.File // inherited from descriptor 3 on
}

// add makes a wire: one end in ours, the other with the descriptor that QEMU
// will have.
func (w *wires) add(ours *net.Conn) (fd int, err error) {
	near, far, err := Wire()
	if err != nil {
		return 0, err
	}
	*ours = near
	w.theirs = append(w.theirs, far)
	return 2 + len(w.theirs), nil
}

// Wire makes a pair of connected sockets: one to use here, one for a child to
// inherit.
func Wire() (near net.Conn, far *os.File, err error) {
	syscall.ForkLock.RLock() // so that no other child inherits them
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(pair[0])
		unix.CloseOnExec(pair[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	f, far := os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "far")
	near, err = net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, errors.Join(err, far.Close())
	}
	return near, far, nil
}

func (w *wires) closeTheirs() {
	for _, f := range w.theirs {
		f.Close()
	}
	w.theirs = nil
}

func (w *wires) close() {
	w.closeTheirs()
	all := append([]net.Conn{w.qmp, w.disk, w.console, w.air}, w.cables...)
	for _, c := range append(all, w.parts...) {
		if c != nil {
			c.Close()
		}
	}
}

// rotateConsole begins a new console and keeps those of the last starts:
// console.1.log is that of the one before.
func (m *Machine) rotateConsole() error {
	name := func(i int) string {
		if i == 0 {
			return m.Console()
		}
		return filepath.Join(m.cfg.Dir, fmt.Sprintf("console.%d.log", i))
	}
	for i := consolesKept - 1; i >= 0; i-- {
		if err := os.Rename(name(i), name(i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.WriteFile(m.Console(), nil, 0o600) // QEMU opens it some time later; a gateway shows its claim code there
}

// tail keeps the end of what QEMU complains about. Only the goroutine of
// exec.Cmd writes, and it is read after that ended.
type tail struct{ bytes.Buffer }

const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	n, _ := t.Buffer.Write(p)
	if extra := t.Len() - maxTail; extra > 0 {
		t.Next(extra)
	}
	return n, nil
}
