package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/lab/air"
	"halo.internal/lab/bus"
	"halo.internal/lab/control"
	"halo.internal/lab/network"
)

// upOptions are the flags of up and of the daemon that it starts.
type upOptions struct {
	nodes    int
	gateway  string
	node     string
	name     string
	pcap     string
	agent    string
	memory   int
	patience time.Duration
	mesh     string
	profile  string
	radios   int
	spacing  float64
	camera   bool
	devices  string
}

func (o *upOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&o.nodes, "nodes", 2, "`number` of nodes besides the gateway")
	f.StringVar(&o.gateway, "gateway-image", "out/halo-gateway-qemu-virt.img", "`image` of the gateway")
	f.StringVar(&o.node, "node-image", "out/halo-node-qemu-virt.img", "`image` of the nodes")
	f.StringVar(&o.name, "network", "lab", "`name` of the HALO network")
	f.StringVar(&o.pcap, "pcap", "", "capture all frames on the switch, or where there is none in the air, to this `file`")
	f.StringVar(&o.agent, "agent", "", "settings of halo-agent, put onto each card: an agent.toml `file`")
	f.IntVar(&o.memory, "memory", 256, "`megabytes` of each machine")
	f.StringVar(&o.mesh, "mesh", string(network.ByAir), "`what` carries the mesh: air, cable or both")
	f.StringVar(&o.profile, "profile", "wifi", "`kind` of radios: wifi, halow-1, halow-2, halow-4 or halow-8 (MHz)")
	f.IntVar(&o.radios, "radios", 1, "`number` of radios of each machine")
	f.Float64Var(&o.spacing, "spacing", 50, "`metres` between machines at the beginning, in a grid")
	f.BoolVar(&o.camera, "camera", true, "each node has a camera: the kernel's, which draws its pictures itself")
	devices := "all"
	if runtime.GOOS != "linux" {
		devices = "none" // they share memory as only Linux does
	}
	f.StringVar(&o.devices, "devices", devices, "`what` is wired to each machine: all, none, or chips, gpio and gps, as in bme280,ina219@0x41,gpio")
	f.DurationVar(&o.patience, "patience", 10*time.Minute, "`time` that the network may take to get ready")
}

// args are the flags again, for the daemon.
func (o *upOptions) args() []string {
	return []string{
		"--nodes", fmt.Sprint(o.nodes), "--gateway-image", o.gateway, "--node-image", o.node, "--network", o.name,
		"--pcap", o.pcap, "--agent", o.agent, "--memory", fmt.Sprint(o.memory), "--patience", o.patience.String(),
		"--mesh", o.mesh, "--profile", o.profile, "--radios", fmt.Sprint(o.radios), "--spacing", fmt.Sprint(o.spacing), fmt.Sprintf("--camera=%v", o.camera),
		"--devices", o.devices,
	}
}

// serve runs the network in this process.
func (a *app) serve(ctx context.Context, o upOptions) error {
	settings := ""
	if o.agent != "" {
		b, err := os.ReadFile(o.agent)
		if err != nil {
			return err
		}
		settings = string(b)
	}
	profile, err := air.Named(o.profile)
	if err != nil {
		return err
	}
	devices, err := bus.Parse(o.devices)
	if err != nil {
		return fmt.Errorf("--devices: %w", err)
	}
	return control.Serve(ctx, control.Options{Dir: a.dir, Capture: o.pcap, Patience: o.patience, Network: network.Options{
		Name: o.name, Nodes: o.nodes, GatewayImage: o.gateway, NodeImage: o.node, MemoryMB: o.memory, Agent: settings,
		Mesh: network.Mesh(o.mesh), Profile: profile, Radios: o.radios, SpacingM: o.spacing, Camera: o.camera, Devices: devices,
		Log: slog.New(slog.NewTextHandler(a.env.Stderr, nil)),
	}})
}

func (a *app) upCommand() *cobra.Command {
	var o upOptions
	var foreground bool
	c := &cobra.Command{
		Use: "up", Short: "boot a network and return when it is ready", Args: cobra.NoArgs,
		Long: `Up boots a gateway and nodes, each with a fresh card and a bundle of the same
new network, and returns when all of them have found each other. They run on,
owned by a process of their own, until halo-lab down.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if foreground {
				return a.foreground(c.Context(), o)
			}
			return a.up(c.Context(), o)
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&foreground, "foreground", false, "stay, and end the network when interrupted")
	return c
}

func (a *app) serveCommand() *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use: "serve", Short: "own a network: what up starts", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.serve(c.Context(), o)
		},
	}
	o.flags(c)
	return c
}

func (a *app) foreground(ctx context.Context, o upOptions) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- a.serve(ctx, o) }()
	err := a.follow(ctx, served)
	if err == nil {
		return <-served
	}
	stop()
	return errors.Join(err, <-served)
}

// logName is the daemon's log in the lab's folder.
const logName = "lab.log"

func (a *app) up(ctx context.Context, o upOptions) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	if err := control.Clean(a.dir); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	logPath := filepath.Join(a.dir, logName)
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	daemon := exec.Command(self, append([]string{"serve", "--dir", a.dir}, o.args()...)...)
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a closed terminal is not the lab's end
	if err := daemon.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		err := daemon.Wait()
		text, _ := os.ReadFile(logPath) // that it ended is worse than that it left no word
		ended <- fmt.Errorf("the lab ended early (%v):\n%s", err, text[max(0, len(text)-2000):])
	}()
	if err := a.follow(ctx, ended); err != nil {
		a.consoleTails()
		// Interrupted or not: nothing stays behind a network that never was.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), downPatience)
		defer cancel()
		return errors.Join(err, a.end(end))
	}
	return nil
}

// follow prints the steps of a lab that comes up, and at the end what to do
// next. ended tells when the lab is gone.
func (a *app) follow(ctx context.Context, ended <-chan error) error {
	client, err := a.await(ctx, ended)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := client.Follow(ctx, a.step); err != nil {
		return err
	}
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	return a.show(struct {
		control.Status
		ClaimCode string  `json:"claim_code"`
		Seconds   float64 `json:"seconds"`
	}{status, client.ClaimCode, time.Since(start).Seconds()}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "\n%d machines are up after %.0f s. The gateway's API: %s (docs at /docs)\nClaim code: %s\n\nNext:\n",
			len(status.Machines), time.Since(start).Seconds(), status.API, client.ClaimCode)
		for _, next := range [][2]string{
			{"claim", "become the admin"},
			{"ctl -- node list", "any haloctl command"},
			{"status", "machines, radios and wires"},
			{"air", "who hears whom; air --help: move, cut, jam them"},
			{"bus", "their sensors; bus --help: set, unplug, let them fail; gpio, gps"},
			{"kill node1", "cut the power; then: start node1"},
			{"down", "end it all"},
		} {
			if err == nil {
				_, err = fmt.Fprintf(w, "  %s %-20s %s\n", a.env.Name, next[0], next[1])
			}
		}
		return err
	})
}

// step prints one step of a machine.
func (a *app) step(p network.Progress) {
	if a.json {
		return // what programs want comes at the end
	}
	fmt.Fprintf(a.env.Stdout, "%6.1f s  %-10s %-8s %s\n", p.After.Seconds(), p.Machine, p.Stage, p.Detail)
}

// await returns when the lab can be spoken to.
func (a *app) await(ctx context.Context, ended <-chan error) (*control.Client, error) {
	for {
		c, err := control.Dial(a.dir)
		if err == nil {
			if _, err = c.Status(ctx); err == nil {
				return c, nil
			}
		} else if !errors.Is(err, control.ErrDown) {
			return nil, err
		}
		select {
		case err := <-ended:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// downPatience is how long the lab may take to end by itself.
const downPatience = 20 * time.Second

// end ends the lab if there is one, and what an earlier one left.
func (a *app) end(ctx context.Context) error {
	c, err := control.Dial(a.dir)
	if err == nil {
		err = c.Down(ctx, downPatience)
	}
	if err != nil && !errors.Is(err, control.ErrDown) {
		return err
	}
	return control.Clean(a.dir)
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "end the network and everything that runs for it", Args: cobra.NoArgs,
		Long: "Down takes the power from all machines and ends the lab. Consoles, cards and\ncaptures stay in its folder until the next up. It is no error when no lab is up.",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.end(c.Context()); err != nil {
				return err
			}
			return a.done("Nothing of the lab in %s runs any more.", a.dir)
		},
	}
}
