//go:build lab

package laptop_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/ctl"
	"halo.internal/ctl/profile"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

const (
	claimCode = "7K3M-Q0ZT-4WXPB"
	password  = "battery staple horse"

	router    = "192.168.77.1" // of the office that gateway and laptop are in, and its name server
	atGateway = "192.168.77.2"
	atLaptop  = "192.168.77.50"
	shop      = "shop.example" // which that name server knows
	atShop    = "203.0.113.5"

	conf = "/root/halo.conf"
)

// person sits at the laptop, which is the machine itself.
type person struct{ *testing.T }

// haloctl runs it, and returns what it says.
func (p person) haloctl(args ...string) string {
	p.Helper()
	var out, errs bytes.Buffer
	environ := map[string]string{"HALO_CLAIM_CODE": claimCode, "HALO_PASSWORD": password}
	code := ctl.Run(p.Context(), ctl.Env{Args: args, Stdout: &out, Stderr: &errs, Profiles: profile.Dir("/root/.config/halo"), Getenv: func(k string) string { return environ[k] }})
	if code != ctl.ExitOK {
		p.Fatalf("haloctl %s: exit status %d: %s%s", strings.Join(args, " "), code, out.String(), errs.String())
	}
	return out.String()
}

// run runs a program of Debian's.
func (p person) run(name string, args ...string) string {
	p.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		p.Fatalf("%s %s: %v:\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ping sends one packet by name or address, and returns the address that it went to.
func (p person) ping(to string) (address string, err error) {
	p.Helper()
	out, err := exec.Command("busybox", "ping", "-c", "1", "-W", "2", to).CombinedOutput()
	if m := regexp.MustCompile(`(?m)^PING \S+ \((\S+)\)`).FindSubmatch(out); m != nil {
		address = string(m[1])
	}
	if err != nil {
		err = fmt.Errorf("ping %s: %w: %s", to, err, out)
	}
	return address, err
}

func (p person) reaches(to string) {
	p.Helper()
	until(p.T, "answer of "+to, func() error { _, err := p.ping(to); return err })
}

// loses waits until nothing answers any more, and says how long that took.
func (p person) loses(to string) {
	p.Helper()
	began := time.Now()
	until(p.T, "loss of "+to, func() error {
		if _, err := p.ping(to); err == nil {
			return fmt.Errorf("it answers still")
		}
		return nil
	})
	p.Logf("%s is lost after %s", to, (time.Since(began) - 2*time.Second).Round(10*time.Millisecond)) // for which ping waits
}

// says reads a page of the API in the overlay with a token.
func (p person) says(page, token string) (string, error) {
	ctx, cancel := context.WithTimeout(p.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

// brings has wg-quick do what haloctl has said, word for word.
func (p person) brings(said string) {
	p.Helper()
	m := regexp.MustCompile(`: (wg-quick up \S+) brings it up`).FindStringSubmatch(said)
	if m == nil {
		p.Fatalf("haloctl does not say how to bring it up: %s", said)
	}
	args := strings.Fields(m[1])
	p.Log(p.run(args[0], args[1:]...))
}

// TestALaptopInTheOverlay does what an operator with Debian does.
func TestALaptopInTheOverlay(t *testing.T) {
	began := time.Now()
	step := func(what string) { t.Logf("%.1f s: %s", time.Since(began).Seconds(), what) }
	debian(t)
	// What the kernel still asks for is not there, and each question is a start of this
	// program.
	ok(t, os.WriteFile("/proc/sys/kernel/modprobe", []byte("\n"), 0))
	p := person{t}

	// An office with a name server, in which gateway and laptop are.
	up0, office0 := nstest.Cable(t, uplinkIface, "office0")
	_, office1 := nstest.Cable(t, "eth0", "office1")
	office(t, office0, office1)
	ok(t, address("eth0", atLaptop+"/24", router))
	p.run("bash", "-c", "echo nameserver "+router+" | resolvconf -a eth0")

	// The mesh is one cable, and a camera is at the node.
	gwCable, nodeCable := nstest.Cable(t, cableIface, "far0")
	for _, l := range []netlink.Link{gwCable, nodeCable} {
		ok(t, netlink.LinkSetMTU(l, 1560)) // with room for batman-adv's header
	}
	lan0, eye := nstest.Cable(t, clientIface, "eye0")
	gwBundle, nodeBundle := bundles(t)
	gw := newDevice(t, model.RoleGateway, "hut", gwBundle, up0, gwCable)
	gw.host.Do(t, func() error { return address(uplinkIface, atGateway+"/24", router) })
	ok(t, os.WriteFile(filepath.Join(gw.root, paths.Upstreams), []byte("nameserver "+router+"\n"), 0o644))
	node := newDevice(t, model.RoleNode, "mast", nodeBundle, nodeCable, lan0)
	gw.enslave(cableIface, paths.BatIface)
	node.enslave("far0", paths.BatIface)
	node.enslave(clientIface, paths.ClientBridge)
	camera := newHost(t, eye)

	at := fmt.Sprintf("https://%s:%d", atGateway, paths.APITLSPort)
	until(t, "the gateway's API", func() error { // a haloctl for each try would take the processor from the gateway
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Minute}, Config: &tls.Config{InsecureSkipVerify: true}} // nothing is said to it
		c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(at, "https://"))
		if err == nil {
			err = c.Close()
		}
		return err
	})
	step("the gateway answers")
	p.haloctl("claim", "--gateway", at)
	step("it is claimed")
	said := p.haloctl("overlay", "register", "--out", conf, "--label", "laptop")
	if !strings.Contains(said, "haloctl firewall open uplink wireguard, then apply and confirm") {
		t.Fatalf("haloctl does not say that the firewall is shut: %s", said)
	}
	p.haloctl("firewall", "open", "uplink", "wireguard")
	p.haloctl("firewall", "apply")
	p.haloctl("firewall", "confirm")
	step("it is registered, and the firewall lets it in")
	p.brings(said)
	step("wg-quick has brought it up")
	p.reaches(paths.OverlayGateway.String())
	step("the gateway answers in the overlay")
	m := node.membership()
	step("the node has joined")
	p.reaches(m.OverlayV4.String())
	step("the node answers")

	// What wg-quick has made of the settings.
	for what, want := range map[string]string{
		p.run("ip", "-br", "address", "show", "dev", "halo"): `10\.42\.255\.1/32`,
		p.run("ip", "link", "show", "dev", "halo"):           `mtu 1280 `,
		p.run("ip", "route", "show", "dev", "halo"):          `(?s)^10\.42\.0\.0/16 .*10\.43\.0\.0/16 `,
		p.run("wg", "show", "halo"):                          `(?s)endpoint: 192\.168\.77\.2:51820.*latest handshake: .*persistent keepalive: every 25 seconds`,
	} {
		if !regexp.MustCompile(want).MatchString(what) {
			t.Errorf("expected %s in:\n%s", want, what)
		}
	}

	// Names: of nodes, of the gateway, short ones, and those of the rest of the world.
	for name, want := range map[string]string{"mast.halo": m.OverlayV4.String(), "mast": m.OverlayV4.String(), "hut.halo": paths.OverlayGateway.String(), "gateway.halo": paths.OverlayGateway.String()} {
		if got, err := p.ping(name); err != nil || got != want {
			t.Errorf("ping %s: goes to %q, want %s: %v", name, got, want, err)
		}
	}
	if got, err := p.ping(shop); got != atShop { // nobody is there
		t.Errorf("%s is %q, want %s: %v", shop, got, atShop, err)
	}
	step("names are found")

	// The API, with a token, by address and by name, a page that is longer than a packet too.
	token := strings.TrimSpace(p.haloctl("api-token", "create", "laptop", "--scope=nodes:read"))
	for page, want := range map[string]string{paths.OverlayAPI + "/v1/nodes": `"mast"`, fmt.Sprintf("http://gateway.halo:%d/v1/nodes", paths.APIPort): `"mast"`, paths.OverlayAPI + "/openapi.json": "wg-register"} {
		if got, err := p.says(page, token); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: got %.200q, %v, want %s", page, got, err, want)
		}
	}
	if got, err := p.says(paths.OverlayAPI+"/v1/nodes", "nobody's"); err == nil {
		t.Errorf("the API answers who has no token of its own: %.200q", got)
	}
	step("the API answers")

	// The node's door, and who is at the node.
	if got := p.haloctl("--node", "mast", "status"); !strings.Contains(got, "mast") {
		t.Errorf("at the node's door: %s", got)
	}
	seat := m.Clients.Masked().Addr().Next()
	eyeAt := seat.Next().Next().Next()
	camera.Do(t, func() error { return address("eye0", eyeAt.String()+"/24", seat.String()) })
	p.reaches(eyeAt.String())
	step("the node's door and a client of the node answer")

	// It is taken off, and is out at once; and comes back under the same key.
	var list struct{ Items []apitype.OverlayVisitor }
	ok(t, json.Unmarshal([]byte(p.haloctl("overlay", "list", "--json")), &list))
	if len(list.Items) != 1 || list.Items[0].LastHandshake == nil || !strings.HasPrefix(list.Items[0].Endpoint, atLaptop+":") {
		t.Fatalf("the gateway has it as %+v", list.Items)
	}
	p.haloctl("overlay", "remove", list.Items[0].ID)
	p.loses(m.OverlayV4.String())
	p.loses(paths.OverlayGateway.String())
	said = p.haloctl("overlay", "register", "--out", conf, "--label", "laptop")
	if strings.Contains(said, "firewall") {
		t.Errorf("the firewall is open: %s", said)
	}
	p.reaches(m.OverlayV4.String())
	step("it was out, and is in again")

	// With the certificate.
	p.haloctl("operator", "revoke", fmt.Sprint(list.Items[0].Certificate))
	p.loses(m.OverlayV4.String())
	step("it is out with its certificate")
	t.Log(p.run("wg-quick", "down", conf))
	if b, err := os.ReadFile("/etc/resolv.conf"); err != nil || !strings.Contains(string(b), router) || strings.Contains(string(b), paths.OverlayGateway.String()) {
		t.Errorf("after wg-quick down: %v: %s", err, b)
	}
	step("it is down")
}

// debian makes the machine's root what packages of Debian expect.
func debian(t *testing.T) {
	t.Helper()
	for _, name := range []string{"sh", "stat", "sort", "readlink", "cat", "rm", "mkdir", "rmdir", "sed", "grep", "chmod", "mv", "cp", "ln", "ls", "true", "cmp"} {
		ok(t, os.Symlink("/bin/busybox", "/bin/"+name))
	}
	ok(t, os.Symlink("/proc/self/fd", "/dev/fd"))
	ok(t, os.MkdirAll("/usr/sbin", 0o755))
	ok(t, os.Symlink("/bin/true", "/usr/sbin/invoke-rc.d")) // by which resolvconf knows a Debian
}
