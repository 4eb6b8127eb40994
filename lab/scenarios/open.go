package scenarios

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"halo.internal/lab/admin"
	"halo.internal/lab/network"
	"halo.internal/model/pcap"
)

// Config of a network for scenarios.
type Config struct {
	GatewayImage string
	NodeImage    string
	Dir          string // of the machines, and of what is captured on the switch
	Mesh         network.Mesh
	Say          func(text string) // may be nil
	Log          *slog.Logger
}

// Options are those of the network that scenarios need.
func (c Config) Options() network.Options {
	return network.Options{
		Name: "scenarios", Nodes: Nodes, Spare: Spare, Ports: Ports, GatewayImage: c.GatewayImage, NodeImage: c.NodeImage,
		Dir: c.Dir, MemoryMB: MemoryMB, Mesh: c.Mesh, Agent: Settings, Log: c.Log,
	}
}

// Open boots a network and claims it. close ends it.
func Open(ctx context.Context, c Config) (w *World, end func() error, err error) {
	n, err := network.New(ctx, c.Options())
	if err != nil {
		return nil, nil, err
	}
	var file *os.File
	stop := func() error {
		err := n.Close()
		if file != nil {
			err = errors.Join(err, file.Close())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	path := filepath.Join(c.Dir, "switch.pcap")
	if c.Mesh != network.ByAir {
		if file, err = os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600); err != nil {
			return nil, nil, err
		}
		capture, err := pcap.New(file, pcap.Ethernet)
		if err != nil {
			return nil, nil, err
		}
		n.Switch.Capture(capture)
	}
	w = NewWorld(n, nil)
	w.Say = c.Say
	if file != nil {
		w.Capture = path
	}
	w.say("booting a gateway and %d nodes, which mesh by %s", Nodes, c.Mesh)
	if err := n.PowerOnAll(); err != nil {
		return nil, nil, err
	}
	if err := w.ready(ctx); err != nil {
		return nil, nil, fmt.Errorf("%w\n%s", err, w.Consoles())
	}
	if w.Admin, err = w.claim(ctx, w.gateway()); err != nil {
		return nil, nil, err
	}
	w.say("the network is up")
	return w, stop, nil
}

// claim makes the admin of a gateway.
func (w *World) claim(ctx context.Context, gateway *network.Machine) (*admin.Admin, error) {
	return admin.Claim(ctx, gateway.URL(), w.Net.Bundles.Gateway.Gateway.ClaimCode)
}
