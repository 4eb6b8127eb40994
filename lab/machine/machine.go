// Package machine runs one virtual board in QEMU the way the Raspberry Pi's
// firmware does: at every start it reads kernel, initramfs and command line
// from the boot partition of the machine's own card, so that whatever the
// running system wrote there decides what starts next. A machine that resets
// itself, or whose watchdog bites, is started again; one that loses power loses
// what its card had not flushed.
package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"halo.internal/lab/disk"
)

// Forward makes a TCP port of the machine's uplink reachable on 127.0.0.1.
type Forward struct {
	Host  int `json:"host"`
	Guest int `json:"guest"`
}

// NIC is a network interface; the guest sees them in their order as eth0, eth1
// and so on.
type NIC struct {
	MAC net.HardwareAddr
	// Plug takes the other end of the interface's cable at each start. When it is
	// nil, the interface leads to a network of its own with nothing on it but a DHCP
	// server and the forwarded ports.
	Plug     func(net.Conn) error
	Forwards []Forward
}

// Part is a device of the machine whose other side is played on this host.
type Part struct {
	Device string // QEMU's name of it, and its options
	Bus    string // the controller that it is plugged into, if that is for it alone; as Device
	Shared bool   // it works on the machine's memory (vhost-user)
	// Plug takes the other end of its wire at each start.
	Plug func(net.Conn) error
}

// Config describes a machine.
type Config struct {
	Name     string
	Dir      string // console logs and the files to boot from
	Disk     *disk.Disk
	MemoryMB int
	CPUs     int // 0 is 1
	// Pi: the machine is a Raspberry Pi 3B, as far as QEMU has one: four cores, an SD card,
	// the device tree that is on the card, and its second serial port. It has 1024 MB,
	// whatever MemoryMB and CPUs say, no bus for NICs, Air and Parts, and no clock.
	Pi   bool
	NICs []NIC
	// Air takes the other end of the virtio port by which the machine's simulated
	// radios speak, at each start; nil: it has no such port.
	Air func(net.Conn) error
	// Camera: the kernel's test camera (vivid) is plugged in.
	Camera bool
	// Parts are devices besides, in the order in which the guest is to see them.
	Parts []Part
	// PowerLost is called before a machine is switched on: what it is wired to has had
	// no power since it was off. It may be nil.
	PowerLost func()
	// Clock is what the real-time clock shows at each start: the host's time, or when
	// false 1970, as on a board without one.
	Clock  bool
	Ahead  time.Duration // of the host's time, with Clock; negative: behind
	Log    *slog.Logger
	Notify func() // called after each change of Status; may be nil
}

// State of a machine.
type State string

// States.
const (
	Off     State = "off"
	Running State = "running"
	Paused  State = "paused"
	Failed  State = "failed" // it is off, and not because somebody wanted it
)

// Status is what is known of a machine from outside.
type Status struct {
	State    State         `json:"state"`
	Detail   string        `json:"detail,omitempty" doc:"why it failed"`
	PID      int           `json:"pid,omitempty"`
	Starts   int           `json:"starts" doc:"since the machine was made"`
	Slot     string        `json:"slot,omitempty" doc:"that the firmware chose: a, b, or flat"`
	Started  time.Time     `json:"started,omitzero"`
	LastEnd  string        `json:"last_end,omitempty" doc:"what ended the run before: guest-reset, watchdog, power-cut …"`
	CPU      time.Duration `json:"cpu_ns" doc:"of all its starts together"`
	Resident int64         `json:"resident_bytes,omitempty" doc:"memory of QEMU itself"`
	Disk     disk.Counters `json:"disk"`
}

// Machine is one board. Its methods may be called from any goroutine.
type Machine struct {
	cfg Config

	mu     sync.Mutex // guards what follows
	status Status
	power  *power // nil while it is off
}

// power is the time from switching on to switching off, with all restarts in
// between.
type power struct {
	cut     context.CancelFunc
	qmp     *qmp          // nil between two starts, as is console
	console io.Writer     // the serial port's other end
	once    sync.Once     // of closing begun
	begun   chan struct{} // closed when QEMU runs for the first time
	gone    chan struct{} // closed when nothing of it runs any more
}

// Errors of the switches.
var (
	ErrOn  = errors.New("machine is on")
	ErrOff = errors.New("machine is off")
)

// New returns a machine that is off. Its folder is its owner's alone: the card
// has keys on it, and the console a claim code.
func New(cfg Config) (*Machine, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	return &Machine{cfg: cfg, status: Status{State: Off}}, nil
}

// Name returns the machine's name.
func (m *Machine) Name() string { return m.cfg.Name }

// SetClock says what the real-time clock shows from the next start on; see
// Config.Clock and Config.Ahead.
func (m *Machine) SetClock(clock bool, ahead time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg.Clock, m.cfg.Ahead = clock, ahead
}

// Forwards returns the forwarded ports.
func (m *Machine) Forwards() []Forward {
	var all []Forward
	for _, n := range m.cfg.NICs {
		all = append(all, n.Forwards...)
	}
	return all
}

// Status returns the machine's present state.
func (m *Machine) Status() Status {
	m.mu.Lock()
	s := m.status
	m.mu.Unlock()
	if s.PID != 0 {
		cpu, resident := usage(s.PID)
		s.CPU, s.Resident = s.CPU+cpu, resident
	}
	s.Disk = m.cfg.Disk.Counters()
	return s
}

// PowerOn starts the machine; it runs until PowerCut, until the guest switches
// itself off, or until ctx ends. It returns when QEMU runs, or when that failed,
// as Status then says.
func (m *Machine) PowerOn(ctx context.Context) error {
	m.mu.Lock()
	if m.power != nil {
		m.mu.Unlock()
		return fmt.Errorf("%s: %w", m.cfg.Name, ErrOn)
	}
	ctx, cut := context.WithCancel(ctx)
	p := &power{cut: cut, begun: make(chan struct{}), gone: make(chan struct{})}
	m.power = p
	m.status.State, m.status.Detail = Running, ""
	m.mu.Unlock()
	m.notify()
	go m.run(ctx, p)
	select {
	case <-p.begun:
	case <-p.gone:
	}
	return nil
}

// PowerCut takes the machine's power away and returns when it is off.
func (m *Machine) PowerCut() error {
	m.mu.Lock()
	p := m.power
	m.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s: %w", m.cfg.Name, ErrOff)
	}
	p.cut()
	<-p.gone
	return nil
}

// Reset is the reset button: the machine starts again at once, and its card
// keeps its power. It returns when the new start is under way.
func (m *Machine) Reset(ctx context.Context) error {
	m.mu.Lock()
	p, starts := m.power, m.status.Starts
	m.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s: %w", m.cfg.Name, ErrOff)
	}
	if err := m.command(ctx, "system_reset"); err != nil {
		return err
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		m.mu.Lock()
		again := m.status.Starts > starts
		m.mu.Unlock()
		if again {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		case <-p.gone:
			tick.Stop()
			return fmt.Errorf("%s: %w instead of starting again", m.cfg.Name, ErrOff)
		case <-tick.C:
		}
	}
}

// Shutdown presses the power button and returns when the machine has switched
// itself off, or, with an error, when ctx ends before.
func (m *Machine) Shutdown(ctx context.Context) error {
	m.mu.Lock()
	p := m.power
	m.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s: %w", m.cfg.Name, ErrOff)
	}
	if err := m.command(ctx, "system_powerdown"); err != nil {
		return err
	}
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not heed its power button: %w", m.cfg.Name, context.Cause(ctx))
	}
}

// Type presses keys at the machine's serial console. What comes of it is in the
// log, see Console.
func (m *Machine) Type(keys string) error {
	m.mu.Lock()
	p := m.power
	var console io.Writer
	if p != nil {
		console = p.console
	}
	m.mu.Unlock()
	if console == nil {
		return fmt.Errorf("%s: %w", m.cfg.Name, ErrOff)
	}
	if _, err := io.WriteString(console, keys); err != nil {
		return fmt.Errorf("console of %s: %w", m.cfg.Name, err)
	}
	return nil
}

// Pause stops the machine's time; Resume lets it go on.
func (m *Machine) Pause(ctx context.Context) error { return m.freeze(ctx, "stop", Paused) }

// Resume is the opposite of Pause.
func (m *Machine) Resume(ctx context.Context) error { return m.freeze(ctx, "cont", Running) }

func (m *Machine) freeze(ctx context.Context, command string, s State) error {
	if err := m.command(ctx, command); err != nil {
		return err
	}
	m.mu.Lock()
	m.status.State = s
	m.mu.Unlock()
	m.notify()
	return nil
}

func (m *Machine) command(ctx context.Context, name string) error {
	m.mu.Lock()
	var q *qmp
	if m.power != nil {
		q = m.power.qmp
	}
	m.mu.Unlock()
	if q == nil {
		return fmt.Errorf("%s: %s: %w", m.cfg.Name, name, ErrOff)
	}
	if err := q.execute(ctx, name); err != nil {
		return fmt.Errorf("%s: %s: %w", m.cfg.Name, name, err)
	}
	return nil
}

func (m *Machine) notify() {
	if m.cfg.Notify != nil {
		m.cfg.Notify()
	}
}

// run starts the machine again and again until it stays off.
func (m *Machine) run(ctx context.Context, p *power) {
	// The kernel ends a child when the thread that made it ends. This one lives as
	// long as this goroutine, and dies with the process, however that ends.
	runtime.LockOSThread()
	defer close(p.gone)
	defer p.cut()
	forgotten := m.forget() // a machine that is switched on remembers nothing
	if m.cfg.PowerLost != nil {
		m.cfg.PowerLost()
	}
	for {
		end, err := "", forgotten
		if err == nil {
			end, err = m.start(ctx, p)
		}
		m.mu.Lock()
		m.status.PID, m.status.LastEnd = 0, end
		again := err == nil && (end == endReset || end == endWatchdog || end == endLabReset)
		switch {
		case err != nil:
			m.status.State, m.status.Detail = Failed, err.Error()
		case !again:
			m.status.State = Off
		}
		if !again {
			m.power = nil
		}
		m.mu.Unlock()
		log := m.cfg.Log.With("node", m.cfg.Name)
		if err != nil {
			log.Warn("machine failed", "err", err)
		} else {
			log.Info("machine ended", "end", end)
		}
		m.notify()
		if !again {
			return
		}
	}
}

// How a start ends.
const (
	endReset    = "guest-reset"
	endLabReset = "host-qmp-system-reset"
	endWatchdog = "watchdog"
	endCut      = "power-cut"
)

// Console returns the path of the console log of the present start.
func (m *Machine) Console() string { return filepath.Join(m.cfg.Dir, consoleName) }
