package agent

import (
	"context"
	"os"
	"path/filepath"

	"halo.internal/agent/act"
	"halo.internal/agent/command"
	"halo.internal/hal/led"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
)

// commands makes what obeys the gateway; nil on a device that has no network, as
// nobody can command it.
func (a *agent) commands(network string) *command.Engine {
	key, err := identity.ParsePublicKey(network)
	if err != nil {
		return nil
	}
	gokrazy := a.path(paths.GokrazySocket)
	device := act.Device{
		Mesh: a.mesh, Supervisor: local.NewSupervisor(gokrazy), Listen: act.Listen, Peer: act.Peer, Log: a.log, Restart: a.again,
		Status:     func() model.MeshStatus { s, _ := a.seen.around(); return s }, // a brief one has no radios
		Supervised: func() bool { _, err := os.Stat(gokrazy); return err == nil },
		Socket: func(program string) string {
			if s := paths.Socket(program); s != "" {
				return a.path(s)
			}
			return ""
		},
		Outputs: outputs{a.outputs, a.chips}, Node: a.id.Key.ID(), Role: a.Role,
		LEDs: filepath.Join(a.Root, led.Class), LEDState: a.path(paths.RunLEDs), TakeLEDs: a.lamps.Take,
		Sensors: a.sensors,
		Config:  func() model.AgentConfig { return a.settings.told() },
		Configure: func(c model.AgentConfig) (model.AgentConfig, error) {
			s, err := a.configure(c)
			return s.told(), err
		},
	}
	if a.reset != nil {
		device.Reset = a.reset
	}
	if err := device.RestoreLEDs(); err != nil {
		a.log.Warn("LEDs may show what they showed when the process died", "err", err)
	}
	card := paths.Dir(a.path(paths.State)).File(paths.Commands)
	if err := atomicfile.Sweep(filepath.Dir(card)); err != nil {
		a.log.Warn("what a power cut left stays", "err", err)
	}
	memory, forgot := command.OpenMemory(network, a.id.Key.ID(), func() bool { return !a.seen.volatile() }, card, a.path(paths.RunCommands))
	e := command.New(command.Config{
		Network: key, Node: a.id.Key.ID(), Boot: a.id.BootCounter, Memory: memory, Actions: act.Actions(device), Log: a.log, Event: a.spool.AddEvent,
		Epoch: func() uint64 { s, _ := a.seen.last(); return s.Epoch },
	})
	if forgot != nil {
		e.Forgot(forgot)
	}
	return e
}

// again has this process end so that it starts anew.
func (a *agent) again() {
	select {
	case a.restart <- struct{}{}:
	default: // it is asked for already
	}
}

// untilAgain returns local.ErrRestart when the process is to start anew.
func (a *agent) untilAgain(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.restart:
		return local.ErrRestart
	}
}
