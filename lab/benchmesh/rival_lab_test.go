//go:build lab

package benchmesh_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"halo.internal/identity"
)

// The rival is what Debian has for the same purpose: wpa_supplicant's mesh, the
// kernel's batman-adv by ip and batctl, udhcpc and dnsmasq, WireGuard by wg. It is
// set up as well as it can be before the radio is there: bat0 is up, dnsmasq
// listens, wg0 has its keys, the mesh interface is made. It is told the channel,
// so that it need not scan, and its node brings wg0 up when it has a lease, so
// that WireGuard does not wait five seconds for an address to speak from. It knows
// hunting-and-pecking alone. Both know the peer's WireGuard key, as HALO's members
// do that have joined before.
type flavour struct {
	name    string
	bla     string // bridge-loop avoidance
	ogm     string // milliseconds between routing messages
	global  string // of wpa_supplicant
	network string
	dnsmasq []string
	udhcpc  string
}

var (
	// defaults is each program with what it does when it is told nothing.
	defaults = flavour{name: "rival", bla: "1", ogm: "1000"}
	// tuned is who knows where the time goes.
	tuned = flavour{
		name: "tuned", bla: "0",
		// As often as HALO until it knows somebody; here it stays so.
		ogm: "250",
		// Shorter ones have two busy machines talk at cross purposes for half a minute.
		global:  "dot11RSNASAERetransPeriod=250\n",
		network: "\tdot11MeshRetryTimeout=255\n\tdot11MeshConfirmTimeout=255\n\tdot11MeshHoldingTimeout=255\n\tbeacon_int=100\n",
		dnsmasq: []string{"--no-ping", "--dhcp-authoritative", "--dhcp-rapid-commit"},
		udhcpc:  "-t 100 -T 1 -A 1",
	}
)

// rival is a gateway and a node of that kind.
type rival struct {
	*world
	flavour
	dir           string
	gateway, node *space
	processes     []*exec.Cmd
}

// hook is what udhcpc calls: with a lease, the overlay can begin.
const hook = `#!/bin/busybox sh
case "$1" in bound|renew)
	ip addr replace $ip/$mask dev $interface
	ip link set wg0 up
	ip route replace 10.42.0.0/16 dev wg0
esac
`

func (w *world) rival(f flavour) *rival {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "rival-")
	w.ok(err)
	r := &rival{world: w, flavour: f, dir: dir, gateway: w.space(), node: w.space()}
	w.t.Cleanup(r.end)
	r.file("hook", 0o755, hook)
	w.ok(os.MkdirAll("/etc", 0o755))
	w.ok(os.WriteFile("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)) // dnsmasq looks itself up
	w.ok(os.WriteFile("/etc/group", []byte("root:x:0:\n"), 0o644))
	r.file("wpa.conf", 0o600, fmt.Sprintf(`user_mpm=1
sae_groups=19
%snetwork={
	ssid="VALLEY-1"
	mode=5
	frequency=2437
	scan_freq=2437
	key_mgmt=SAE
	psk="a password of the lab"
	ieee80211w=2
	pairwise=CCMP
	group=CCMP
	mesh_fwding=0
%s}
`, f.global, f.network))
	keys := [2]identity.Key{identity.New(), identity.New()}
	for i, s := range []*space{r.gateway, r.node} {
		own, other := keys[i].WireGuard(), keys[1-i].WireGuardPublic()
		secret := r.file(fmt.Sprintf("key%d", i), 0o600, base64.StdEncoding.EncodeToString(own[:]))
		w.do(s, "ip", "link", "add", "bat0", "type", "batadv")
		w.do(s, "batctl", "meshif", "bat0", "bridge_loop_avoidance", f.bla)
		w.do(s, "batctl", "meshif", "bat0", "orig_interval", f.ogm)
		w.do(s, "ip", "link", "set", "bat0", "up")
		w.do(s, "ip", "link", "add", "wg0", "type", "wireguard")
		peer := []string{"set", "wg0", "private-key", secret, "listen-port", "51820", "peer", base64.StdEncoding.EncodeToString(other[:])}
		if i == 0 {
			w.do(s, "ip", "addr", "add", "10.41.0.1/16", "dev", "bat0")
			w.do(s, "wg", append(peer, "allowed-ips", "10.42.1.1/32")...)
			w.do(s, "ip", "addr", "add", "10.42.0.1/16", "dev", "wg0")
			w.do(s, "ip", "link", "set", "wg0", "up")
			r.begin(s, "dnsmasq", append([]string{
				"--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=root", "--port=0", "--interface=bat0", "--bind-interfaces",
				"--dhcp-range=10.41.1.1,10.41.1.200,12h", "--pid-file=" + filepath.Join(dir, "dnsmasq.pid"), "--dhcp-leasefile=" + filepath.Join(dir, "leases"),
			}, f.dnsmasq...)...)
		} else {
			w.do(s, "wg", append(peer, "allowed-ips", "10.42.0.0/16", "endpoint", "10.41.0.1:51820")...)
			w.do(s, "ip", "addr", "add", "10.42.1.1/32", "dev", "wg0")
		}
	}
	return r
}

func (r *rival) file(name string, mode os.FileMode, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	r.ok(os.WriteFile(path, []byte(text), mode))
	return path
}

// begin starts a program with a group of its own, by which all that it starts ends.
func (r *rival) begin(s *space, name string, args ...string) {
	r.t.Helper()
	log, err := os.OpenFile(filepath.Join(r.dir, fmt.Sprintf("log-%d", len(r.processes))), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	r.ok(err)
	defer log.Close()
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr, c.SysProcAttr = log, log, &syscall.SysProcAttr{Setpgid: true}
	r.ok(s.within(c.Start))
	r.processes = append(r.processes, c)
}

// plugged is what a rule of udev would run for the gateway's, or node's, radio.
func (r *rival) plugged(s *space, iface string) {
	r.t.Helper()
	lines := []string{
		"wpa_supplicant -t -D nl80211 -i " + iface + " -c " + filepath.Join(r.dir, "wpa.conf") + " &",
		"ip link set " + iface + " mtu 1560",
		"batctl meshif bat0 interface add " + iface,
	}
	if s == r.node {
		lines = append(lines, fmt.Sprintf("busybox udhcpc -f -i bat0 %s -s %s &", r.udhcpc, filepath.Join(r.dir, "hook")))
	}
	r.begin(s, "busybox", "sh", "-c", strings.Join(append(lines, "wait"), "\n"))
}

func (r *rival) end() {
	for _, c := range r.processes {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // it may have died
		_ = c.Wait()
	}
	if r.processes = nil; r.gateway == nil {
		return
	}
	if r.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(r.dir, "log-*"))
		for _, name := range logs {
			b, _ := os.ReadFile(name)
			r.t.Logf("%s of the %s:\n%s", filepath.Base(name), r.name, b[:min(len(b), 4000)])
		}
	}
	r.gateway.end()
	r.node.end()
	r.gateway = nil
	os.RemoveAll(r.dir)
}
