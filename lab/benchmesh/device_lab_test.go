//go:build lab

package benchmesh_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/lab/testvm"
	"halo.internal/local"
	"halo.internal/mesh"
	"halo.internal/mesh/join"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/provision"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		os.Exit(run(model.Role(role), os.Getenv(envRoot)))
	}
	testvm.Main(m, testvm.Options{
		Modules:  []string{"mac80211_hwsim radios=0", "batman_adv", "wireguard"},
		Packages: []string{"iw", "wpasupplicant", "batctl", "iproute2", "busybox", "dnsmasq-base", "wireguard-tools"},
		MemoryMB: 1024, CPUs: 2,
	})
}

const (
	envRole  = "HALO_BENCH_ROLE"
	envRoot  = "HALO_BENCH_ROOT"
	envBoot  = "HALO_BENCH_BOOT"
	envHaLow = "HALO_BENCH_HALOW" // radios stand for HaLow's
)

// run is the process of a device: halo-mesh as it is on boards, but for the places
// of its files and its clock.
func run(role model.Role, root string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := nice(0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err := mesh.Run(ctx, mesh.Config{
		Root: root, Role: role, BootID: os.Getenv(envBoot), Boot: plainBoot{}, Clock: still{},
		Console: func() (io.WriteCloser, error) { return os.Create(filepath.Join(root, "console")) },
		Underlay: func(c mesh.UnderlayConfig) mesh.Underlay {
			if os.Getenv(envHaLow) != "" {
				c.Fitted = asHaLow
			}
			return mesh.NewUnderlay(c)
		},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// asHaLow gives a radio the times of slow ones, as wireless does for Morse's.
func asHaLow(c *radio.Config) {
	c.Morse, c.SAE, c.Peering = true, sae.HaLow, peering.HaLow
}

type plainBoot struct{}

func (plainBoot) Writable(f func() error) error { return f() }

// still is the machine's clock, which nobody sets.
type still struct{}

func (still) Now() time.Time          { return time.Now() }
func (still) Set(time.Time) error     { return nil }
func (still) RTC() (time.Time, error) { return time.Time{}, errors.New("no battery-backed clock") }

// network is a HALO network whose members have joined before: their cards hold
// membership and keys, so that what is measured is coming back.
type network struct {
	*world
	key    identity.Key // the gateway's
	bundle bundle.Bundle
	halow  bool
	crowd  bool   // many devices share the machine's processors
	ca     string // as PEM; nobody asks it for anything
	made   int
}

const epoch = 1

func (w *world) network(profile bundle.Mesh, halow bool) *network {
	key := identity.New()
	profile.SSID, profile.PSK = "VALLEY-1", "a password of the lab"
	return &network{
		world: w, key: key, halow: halow,
		ca: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("a certificate of the lab")})),
		bundle: bundle.Bundle{
			Version: bundle.Version, Network: "valley", Country: "DE", Mesh: profile,
			Gateway: bundle.Gateway{PublicKey: key.Public().Base64()},
		},
	}
}

// device is a member of the network.
type device struct {
	net    *network
	role   model.Role
	name   string
	root   string
	key    identity.Key
	starts int // of its machine
	space  *space
	cmd    *exec.Cmd
	mesh   *local.Mesh
}

// device makes a member; its process does not run yet.
func (n *network) device(role model.Role, name string) *device {
	n.t.Helper()
	root, err := os.MkdirTemp("", "halo-bench-")
	n.ok(err)
	n.t.Cleanup(func() { os.RemoveAll(root) })
	d := &device{net: n, role: role, name: name, root: root, key: n.key, mesh: local.NewMesh(filepath.Join(root, paths.MeshSocket))}
	b := n.bundle
	b.Role, b.Name = role, name
	if role == model.RoleGateway {
		b.Gateway.Seed = base64.StdEncoding.EncodeToString(n.key.Seed())
	} else {
		d.key = identity.New()
	}
	for _, dir := range []string{paths.Boot, paths.State} {
		n.ok(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	store := state.New(paths.Dir(filepath.Join(root, paths.State)), nil)
	_, err = provision.Keep(store, b)
	n.ok(err)
	n.ok(identity.State{Key: d.key}.Save(store.Dir().File(paths.Identity), nil))
	if role == model.RoleNode {
		n.made++
		_, err = store.Put(paths.Membership, "", join.Marshal(n.membership(d)))
		n.ok(err)
	}
	n.t.Cleanup(d.cut)
	return d
}

// overlayOf is the overlay address of the node of that number.
func overlayOf(number int) netip.Addr { return netip.AddrFrom4([4]byte{10, 42, 1, byte(number)}) }

func (n *network) membership(d *device) model.Membership {
	wg := n.key.WireGuardPublic()
	return model.Membership{
		Node: d.key.ID(), Name: d.name, Network: n.key.Public().Base64(), CA: n.ca, Epoch: epoch,
		OverlayV4: overlayOf(n.made), OverlayV6: identity.Overlay(n.key.Public(), d.key.Public()),
		GatewayWireGuardKey: base64.StdEncoding.EncodeToString(wg[:]), Clients: paths.ClientsOf(uint8(n.made)),
	}
}

// admit tells the gateway of its members, as gateway-api does, and of more that
// nobody is, to the number of all.
func (n *network) admit(gateway *device, nodes []*device, all int) {
	n.t.Helper()
	var list []model.AdmittedPeer
	admit := func(key identity.Key, number int, name string) {
		wg := key.WireGuardPublic()
		p := model.AdmittedPeer{
			Node: key.ID(), IdentityKey: key.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
			OverlayV4: overlayOf(number), OverlayV6: identity.Overlay(n.key.Public(), key.Public()), Name: name, Clients: paths.ClientsOf(uint8(number)),
		}
		list = append(list, p)
	}
	for i, d := range nodes {
		admit(d.key, i+1, d.name)
	}
	for i := len(nodes); i < all; i++ {
		admit(identity.New(), i+1, fmt.Sprintf("absent-%d", i))
	}
	der, _ := pem.Decode([]byte(n.ca))
	ca := sha256.Sum256(der.Bytes)
	n.until("the gateway takes the list of members", func() error {
		ctx := n.t.Context()
		return errors.Join(gateway.mesh.PutPeers(ctx, list), gateway.mesh.PutAnnounce(ctx, model.Announce{APIPort: paths.APITLSPort, CASHA256: hex.EncodeToString(ca[:]), Epoch: epoch}))
	})
}

// start starts the device's machine, whose network is a new one, and returns when
// halo-mesh has done all that it can without anything to carry the mesh.
func (d *device) start() {
	n := d.net
	n.t.Helper()
	d.space = n.space()
	d.starts++
	n.ok(os.RemoveAll(filepath.Join(d.root, paths.Run))) // RAM
	d.cmd = exec.Command("/proc/self/exe")
	d.cmd.Env = append(os.Environ(), envRole+"="+string(d.role), envRoot+"="+d.root, fmt.Sprintf("%s=boot-%d", envBoot, d.starts))
	if n.halow {
		d.cmd.Env = append(d.cmd.Env, envHaLow+"=1")
	}
	if n.crowd {
		d.cmd.Env = append(d.cmd.Env, "GOMAXPROCS=1") // its share is less than that
	}
	log, err := os.OpenFile(filepath.Join(d.root, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	n.ok(err)
	defer log.Close()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	n.ok(d.space.within(d.cmd.Start))
	n.until(d.name+" waits for a radio", func() error {
		r, err := d.mesh.Health(n.t.Context())
		if i := slices.IndexFunc(r.Checks, func(c health.Check) bool { return c.Name == "bat0" }); err == nil && (i < 0 || r.Checks[i].State != health.OK) {
			err = fmt.Errorf("bat0 is not ready: %+v", r.Checks)
		}
		return err
	})
}

// cut cuts the device's power.
func (d *device) cut() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill() // it may have died
	_ = d.cmd.Wait()
	if d.net.t.Failed() {
		b, _ := os.ReadFile(filepath.Join(d.root, "log"))
		d.net.t.Logf("log of %s:\n%s", d.name, b[max(0, len(b)-8000):])
	}
	d.cmd = nil
	d.space.end()
}

func (d *device) status() (model.MeshStatus, error) {
	s, err := d.mesh.Status(d.net.t.Context())
	if err != nil {
		err = fmt.Errorf("%s: %w", d.name, err)
	}
	return s, err
}
