// Package act is what a node does when it is commanded to: for each kind of command
// the one thing that the board, halo-mesh or gokrazy is asked for. A kind that is
// not in Actions is refused.
package act

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"time"

	"halo.internal/agent/command"
	"halo.internal/agent/reset"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Mesh is what is asked of halo-mesh. Errors are those of package local.
type Mesh interface {
	Scan(context.Context, model.ScanRequest) (model.RadioScan, error)
	Capture(context.Context, model.CaptureRequest, io.Writer) error
	Legal(context.Context) ([]model.Legality, error)
}

// Supervisor is gokrazy.
type Supervisor interface {
	Process(ctx context.Context, program string) (local.Process, error)
	Kill(ctx context.Context, program string) error
	Reboot(context.Context) error
}

var _ Supervisor = (*local.Supervisor)(nil)

// Device is the board that acts.
type Device struct {
	Mesh       Mesh
	Status     func() model.MeshStatus // of halo-mesh, as last seen
	Supervisor Supervisor
	Supervised func() bool                 // gokrazy is there
	Socket     func(program string) string // of a process; empty: it has none
	Restart    func()                      // has this process end itself
	Outputs    Outputs                     // nil: it drives none
	Node       string                      // canonical ID
	Role       model.Role
	Reset      reset.Request            // asks for the factory reset at the next start; nil: it cannot
	LEDs       string                   // class directory
	LEDState   string                   // file for what they showed
	TakeLEDs   func() (give func())     // has nobody else use them until give; nil: nobody does
	Config     func() model.AgentConfig // in use
	// Configure writes what is to be used from the next start on, and returns that.
	Configure func(model.AgentConfig) (model.AgentConfig, error)
	Listen    func(netip.Addr) (net.Listener, error) // for a speed test
	Peer      func(netip.Addr) netip.AddrPort        // where a device serves one
	Sensors   Sensors                                // nil: it has no buses
	Log       *slog.Logger

	orderly, start time.Duration // of a test; 0: orderlyWait and startWait
}

// mayForget: with the gateway's device goes the network, and nobody far away can bring
// that back.
func (d Device) mayForget() error {
	if d.Role == model.RoleGateway {
		return model.RefuseCommand(model.CodeUnsupported, "this is the gateway: make a backup, and hold its button")
	}
	return d.supervised()
}

// resetPause is for the answer to reach the gateway: nobody is left to give it later.
const resetPause = 10 * time.Second

// reset has the next start begin with nothing. When it comes again it asks again, which
// changes nothing.
func (d Device) reset(_ context.Context, t *command.Task) (command.Result, error) {
	if t.Command.Reset.Confirm != d.Node {
		return command.Result{}, model.RefuseCommand(model.CodeInvalid, "confirm: expected %s, which this node is", d.Node)
	}
	if err := d.Reset.Ask(t.By); err != nil {
		return command.Result{}, err
	}
	d.Log.Warn("factory reset at the next start, which is now", "by", t.By)
	time.AfterFunc(resetPause, func() {
		if err := reset.Restart(context.Background(), d.Reset, d.Supervisor.Reboot); err != nil {
			d.Log.Error("no factory reset", "err", err)
		}
	})
	return command.Result{Value: map[string]any{"restarts_in_s": int(resetPause / time.Second)}}, nil
}

// Outputs are what the device switches.
type Outputs interface {
	Able() error
	Set(name string, part float64) error // for that part of the time, 0 to 1
}

// setOutput switches an output. It is done again when it comes again: that changes nothing.
func (d Device) setOutput(_ context.Context, t *command.Task) (command.Result, error) {
	c := t.Command.Output
	part := 0.0
	switch {
	case c.On && c.Percent != nil:
		part = *c.Percent / 100
	case c.On:
		part = 1
	}
	if err := d.Outputs.Set(c.Output, part); err != nil {
		return command.Result{}, err
	}
	d.Log.Info("an output was switched", "output", c.Output, "on", c.On, "by", t.By)
	return command.Result{Value: map[string]any{"output": c.Output, "on": c.On, "percent": part * 100}}, nil
}

// Actions returns what the device does.
func Actions(d Device) map[model.CommandKind]command.Action {
	all := map[model.CommandKind]command.Action{
		model.CommandReboot:     {Able: d.supervised, Do: d.reboot, After: afterReboot, Firm: true},
		model.CommandRestart:    {Able: d.supervised, Do: d.restart, After: afterRestart, Firm: true},
		model.CommandLocate:     {Able: d.lamps, Do: d.locate},
		model.CommandScan:       {Able: d.radios, Do: d.scan},
		model.CommandCapture:    {Able: d.radios, Do: d.capture},
		model.CommandConfig:     {Do: d.config, Firm: true},
		model.CommandSensor:     {Able: d.senses, Do: d.sensor, Many: true},
		model.CommandDisplay:    {Able: d.displays, Do: d.display},
		model.CommandSpeedTest:  {Able: d.overlaid, Do: d.speedTest},
		model.CommandSpeedServe: {Able: d.overlaid, Do: d.speedServe},
	}
	if d.Reset != nil {
		all[model.CommandReset] = command.Action{Able: d.mayForget, Do: d.reset}
	}
	if d.Outputs != nil {
		all[model.CommandSetOutput] = command.Action{Able: d.Outputs.Able, Do: d.setOutput}
	}
	return all
}

// Listen opens the port of speed tests on an overlay address.
func Listen(a netip.Addr) (net.Listener, error) { return net.Listen("tcp", Peer(a).String()) }

// Peer is where the device of an overlay address serves speed tests.
func Peer(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, paths.SpeedPort) }

func (d Device) supervised() error {
	if d.Supervised() {
		return nil
	}
	return model.RefuseCommand(model.CodeUnsupported, "gokrazy does not supervise this device: nobody would start again what ends")
}

// reboot starts the machine anew. It waits first until the gateway knows, as the
// report would otherwise come a minute later; without that it needs a memory that
// outlives the machine, or a command that comes again would be done again.
func (d Device) reboot(ctx context.Context, t *command.Task) (command.Result, error) {
	if !t.Told(ctx) && !t.Lasts {
		return command.Result{}, model.RefuseCommand(model.CodeUnkept, "the data partition keeps nothing, and the gateway has not said that it knows: the device might start again and again")
	}
	d.Log.Warn("the machine starts anew", "by", t.By)
	return command.Result{}, d.Supervisor.Reboot(ctx)
}

func afterReboot(e command.Entry, boot uint64) (model.CommandState, string) {
	if boot > e.Boot {
		return model.CommandDone, fmt.Sprintf("the machine has started, for the %d. time", boot)
	}
	return model.CommandFailed, "the process ended, and the machine went on"
}

const (
	orderlyWait = 20 * time.Second // for a process to end when it is asked to
	startWait   = 60 * time.Second // for it to be there again
	lookEvery   = 500 * time.Millisecond
)

// restart has a process end: when asked, or by force where it hangs; gokrazy starts it
// again.
func (d Device) restart(ctx context.Context, t *command.Task) (command.Result, error) {
	name := t.Command.Restart.Component
	before, err := d.Supervisor.Process(ctx, name)
	switch {
	case errors.Is(err, local.ErrNoProcess):
		return command.Result{}, model.RefuseCommand(model.CodeNoComponent, "%s is not on this device", name)
	case err != nil:
		return command.Result{}, err
	case before.Stopped:
		return command.Result{}, model.RefuseCommand(model.CodeNoComponent, "%s does not run here: this device does not need it", name)
	}
	d.Log.Warn("a process starts anew", "process", name, "by", t.By)
	if name == "halo-agent" {
		t.Told(ctx) // it is kept in any case: in /run, which outlives the process
		d.Restart()
		<-ctx.Done()
		return command.Result{}, ctx.Err()
	}
	socket := d.Socket(name)
	how := "in order"
	if socket == "" || local.Restart(ctx, socket) != nil || d.await(ctx, cmp.Or(d.orderly, orderlyWait), func() bool { return d.another(ctx, name, before.Pid) }) != nil {
		how = "by force"
		if err := d.Supervisor.Kill(ctx, name); err != nil {
			return command.Result{}, err
		}
	}
	err = d.await(ctx, cmp.Or(d.start, startWait), func() bool { return d.another(ctx, name, before.Pid) && answers(ctx, socket) })
	if err != nil {
		return command.Result{}, fmt.Errorf("%s ended %s and is not there again: %w", name, how, err)
	}
	return command.Result{Value: map[string]string{"component": name, "ended": how}}, nil
}

func afterRestart(e command.Entry, _ uint64) (model.CommandState, string) {
	if e.About == "halo-agent" {
		return model.CommandDone, "halo-agent has started again"
	}
	return model.CommandFailed, "halo-agent ended meanwhile"
}

// another tells whether a process of that name runs that is not the one of that
// number.
func (d Device) another(ctx context.Context, name string, pid int) bool {
	p, err := d.Supervisor.Process(ctx, name)
	return err == nil && !p.Stopped && p.Pid != 0 && p.Pid != pid
}

// answers tells whether somebody is on a socket; of a process without one nobody
// knows.
func answers(ctx context.Context, socket string) bool {
	if socket == "" {
		return true
	}
	m := local.NewMesh(socket) // all have /health
	defer m.Close()
	_, err := m.Health(ctx)
	_, no := errors.AsType[*local.Refusal](err)
	return err == nil || no
}

// await looks until something is so.
func (d Device) await(ctx context.Context, limit time.Duration, so func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lookEvery):
		}
	}
	return nil
}

// config tells the settings, or has others from the next start of this process on,
// which follows at once.
func (d Device) config(_ context.Context, t *command.Task) (command.Result, error) {
	c := t.Command.Config
	if *c == (model.AgentConfig{}) {
		return command.Result{Value: d.Config()}, nil
	}
	next, err := d.Configure(*c)
	if err != nil {
		return command.Result{}, err
	}
	if reflect.DeepEqual(next, d.Config()) {
		return command.Result{Value: next}, nil
	}
	return command.Result{Value: next, Then: d.Restart}, nil
}
