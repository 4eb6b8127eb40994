//go:build lab

package systemtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/ctl/doorway"
	"halo.internal/ctl/profile"
	"halo.internal/lab/network"
	"halo.internal/mesh/nstest"
	"halo.internal/model/apitype"
)

// operator returns the profile of somebody who has logged in as admin.
func (l *lab) operator(t *testing.T) string {
	t.Helper()
	cred := doorway.NewCredential()
	key, err := cred.Key()
	if err != nil {
		t.Fatal(err)
	}
	o, err := l.api.CertifyOperator(t.Context(), apitype.CreateOperatorCertificate{Key: key.Public().Base64(), Label: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := l.api.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cred.Take(o, time.Now())
	file := filepath.Join(t.TempDir(), "lab.json")
	p := profile.Profile{Network: "lab", NetworkKey: key.Public().Base64(), Gateway: "http://127.0.0.1:9", Username: o.Username, Role: o.Role}
	for _, err := range []error{
		p.Save(file), cred.Save(strings.TrimSuffix(file, ".json") + ".operator"), doorway.KnownOf(nodes, time.Now()).Save(strings.TrimSuffix(file, ".json") + ".nodes"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// anOperator comes in with a laptop at a node's client port: at that node, whose
// address there is at, and by the overlay at another and at the gateway.
func anOperator(t *testing.T, l *lab, laptop *nstest.Host, at string) {
	haloctl, err := exec.LookPath("haloctl")
	if err != nil {
		t.Fatalf("%v; `make build` makes it", err)
	}
	file := l.operator(t)
	for _, way := range []struct{ what, node, want string }{
		{"the node at its client port", l.nodes[0].Name() + "@" + at, l.nodes[0].Name()},
		{"the node by its name", l.nodes[0].Name(), l.nodes[0].Name()},
		{"the other node", l.nodes[1].Name(), l.nodes[1].Name()},
		{"the gateway", l.gateway.Name(), l.gateway.Name()},
	} {
		l.run(t, laptop, way.what, `"name": "`+way.want+`"`, haloctl, "--config", file, "--node", way.node, "mesh", "status", "--json")
	}
	l.run(t, laptop, "the other node's firewall", "door", haloctl, "--config", file, "--node", l.nodes[1].Name(), "net", "firewall")
	bundle := filepath.Join(t.TempDir(), "support.tar.gz")
	l.run(t, laptop, "a support bundle", "Wrote", haloctl, "--config", file, "--node", l.nodes[1].Name(), "support", "--out", bundle)
	for file, want := range map[string]string{"kernel.txt": "", "log/halo-mesh-now.txt": "halo-mesh runs", "log/halo-agent.txt": `starting ["/user/halo-agent"]`} {
		if out, err := exec.Command("tar", "xzOf", bundle, "halo-support/"+file).CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("support bundle: no %q in %s: %v, %.500s", want, file, err, out)
		}
	}
}

// atTheConsole logs in at a node's serial port with its code, and finds haloctl
// there.
func atTheConsole(t *testing.T, l *lab) {
	m := l.nodes[0]
	code, err := l.api.NodeCode(t.Context(), m.Name())
	if err != nil {
		t.Fatal(err)
	}
	dialogue := []struct{ types, shows string }{
		{"\r", "Code: "}, {"no such code\r", "the code is not this node's"}, {"\r", "Code: "}, {code.Code + "\r", "Logged in."},
		{"mesh status\r", "Nodes reachable"}, {"net interfaces\r", "wg0"}, {"support --out /perm/x\r", "a console has no"}, {"exit\r", "Logged out."},
	}
	seen := 0
	for _, d := range dialogue {
		l.types(t, m, d.types, d.shows, &seen)
	}
	if text, err := os.ReadFile(m.Console()); err != nil || strings.Contains(string(text), code.Code) {
		t.Errorf("the code is on the screen, %v", err)
	}
}

// types presses keys and waits for a text that was not shown before.
func (l *lab) types(t *testing.T, m *network.Machine, keys, want string, seen *int) {
	t.Helper()
	before := *seen
	if err := m.Type(keys); err != nil {
		t.Fatal(err)
	}
	l.eventually(t, fmt.Sprintf("the console shows %q after %q", want, keys), func() error {
		text, err := os.ReadFile(m.Console())
		if err != nil {
			return err
		}
		i := strings.Index(string(text[min(before, len(text)):]), want)
		if i < 0 {
			return fmt.Errorf("the console ends with %q", text[max(0, len(text)-400):])
		}
		*seen = before + i + len(want)
		return nil
	})
}
