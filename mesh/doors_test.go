package mesh_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/ctl"
	"halo.internal/ctl/doorway"
	"halo.internal/ctl/profile"
	"halo.internal/identity"
	"halo.internal/identity/nodecode"
	"halo.internal/identity/operator"
	"halo.internal/local"
	"halo.internal/mesh/door"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// ran is what came of a haloctl.
type ran struct {
	Code     int
	Out, Err string
}

// haloctl runs one in the process of a board, where its network is.
func haloctl(w http.ResponseWriter, r *http.Request) {
	var args []string
	if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	root := os.Getenv(envRoot)
	var out, errs bytes.Buffer
	code := ctl.Run(r.Context(), ctl.Env{
		Args: args, Stdout: &out, Stderr: &errs, Profiles: profile.Dir(filepath.Join(root, "profiles")),
		Getenv: func(string) string { return "" }, MeshSocket: filepath.Join(root, paths.MeshSocket),
	})
	_ = json.NewEncoder(w).Encode(ran{code, out.String(), errs.String()}) // the test fails without it
}

func (d *board) haloctl(args ...string) (ran, error) {
	b, err := json.Marshal(args)
	if err != nil {
		return ran{}, err
	}
	c := http.Client{Timeout: patience, Transport: unixTransport(filepath.Join(d.root, probeSocket))}
	resp, err := c.Post("http://probe/haloctl", "application/json", bytes.NewReader(b))
	if err != nil {
		return ran{}, err
	}
	defer resp.Body.Close()
	var r ran
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// says runs haloctl until it ends with that status and says that.
func (d *board) says(code int, want string, args ...string) {
	d.t.Helper()
	until(d.t, "haloctl "+strings.Join(args, " "), func() error {
		r, err := d.haloctl(args...)
		if err == nil && (r.Code != code || !strings.Contains(r.Out+r.Err, want)) {
			err = fmt.Errorf("exit status %d, want %d and %q in %s%s", r.Code, code, want, r.Out, r.Err)
		}
		return err
	})
}

// letIn puts an operator's files on a board, as a login leaves them.
func (d *board) letIn(network identity.Key, serial, epoch uint64, nodes ...apitype.Node) {
	d.t.Helper()
	cred := doorway.NewCredential()
	key, err := cred.Key()
	if err != nil {
		d.t.Fatal(err)
	}
	now := time.Now()
	c := operator.Certificate{Serial: serial, Epoch: epoch, User: "anna", Role: apitype.RoleOperator, Key: key.Public(), Issued: now, Expires: now.Add(operator.Validity)}
	signed, err := operator.Sign(network, c)
	if err != nil {
		d.t.Fatal(err)
	}
	cred.Take(apitype.OperatorCertificate{Certificate: operator.Encode(signed), Serial: serial, Username: "anna", Role: c.Role, Issued: now, Expires: c.Expires}, now)
	dir := filepath.Join(d.root, "profiles")
	p := profile.Profile{Network: "test-ridge", NetworkKey: network.Public().Base64(), Gateway: "http://127.0.0.1:9", Username: "anna", Role: c.Role}
	for _, err := range []error{
		p.Save(filepath.Join(dir, "test-ridge.json")), cred.Save(filepath.Join(dir, "test-ridge.operator")),
		doorway.KnownOf(nodes, now).Save(filepath.Join(dir, "test-ridge.nodes")),
	} {
		if err != nil {
			d.t.Fatal(err)
		}
	}
}

// TestTheDoor has operators at the gateway and at a node come in at another node,
// while the gateway is there and while it is not, unless their certificates are
// revoked. On the way, both kinds of device show what they give away and whose
// code they take.
func TestTheDoor(t *testing.T) {
	turn(t)
	gwBundle, nodeBundle, key := bundles(t)
	gw, a, b := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle), newBoard(t, model.RoleNode, nodeBundle)
	for _, d := range []*board{gw, a, b} {
		d.start()
	}
	until(t, "a node is up", func() error { _, err := a.mesh.Status(t.Context()); return err })
	if err := a.try("7K3M-Q0ZT-4WXP-B2D9"); !errors.Is(err, local.ErrNone) {
		t.Errorf("a code before it has joined: %v", err)
	}
	hub(t, gw, a, b)
	until(t, "both have joined", func() error { return errors.Join(a.fetch(), b.fetch()) })
	sa, sb := a.status(), b.status()
	nodes := []apitype.Node{{ID: sa.Node, Name: "alpha", OverlayV4: netip.MustParseAddr(sa.OverlayV4)}, {ID: sb.Node, Name: "bravo", OverlayV4: netip.MustParseAddr(sb.OverlayV4)}, {ID: key.ID(), Name: "gw", OverlayV4: paths.OverlayGateway}}
	gw.letIn(key, 7, 0, nodes...)
	a.letIn(key, 8, 0, nodes...)

	gw.says(ctl.ExitOK, sa.Node, "--node", "alpha", "mesh", "status", "--json")
	gw.says(ctl.ExitOK, sb.Node, "--node", sb.OverlayV4, "mesh", "status", "--json")
	gw.says(ctl.ExitOK, sb.Node, "--node", sb.Node+"@["+sb.OverlayV6+"]:4256", "status", "--json")
	a.says(ctl.ExitOK, key.ID(), "--node", "gw", "mesh", "status", "--json")
	a.says(ctl.ExitOK, sa.Node, "--node", sa.Node, "mesh", "status", "--json") // itself, at its socket
	a.says(ctl.ExitUnauthorised, "this needs the role admin", "--node", "bravo", "mesh", "capture", "--out", "-")
	a.says(ctl.ExitOK, "door.opened", "event", "list", "--node", "bravo", "--direct")
	until(t, "what came in is an event", func() error { return b.hasEvent(door.EventOpened) })
	until(t, "what the role may not is one too", func() error { return b.hasEvent(door.EventDenied) })
	t.Run("support", func(t *testing.T) { checkSupport(t, key, gw, a) })
	t.Run("codes", func(t *testing.T) { checkCodes(t, key, gw, a) })

	if err := gw.mesh.PutOperators(t.Context(), model.Operators{Floor: 8, Revoked: []uint64{9}}); err != nil {
		t.Fatal(err)
	}
	gw.says(ctl.ExitUnauthorised, "the gateway counts none below number 8 any more", "--node", "bravo", "mesh", "status")
	until(t, "who was not let in is an event", func() error { return b.hasEvent(door.EventRefused) })

	gw.cut()
	checkAlone(t, a, sa.Node, sb.Node)
	a.letIn(key, 9, 0, nodes...)
	a.says(ctl.ExitUnauthorised, "operator certificate is revoked: number 9 of anna", "--node", "bravo", "mesh", "status")
	kept, err := os.ReadFile(filepath.Join(b.root, paths.State, paths.PeerList)) // it outlives a restart
	if err != nil {
		t.Fatal(err)
	}
	if l, err := peerlist.Parse(key.Public(), kept); err != nil || !slices.Equal(l.Operators.Revoked, []uint64{9}) {
		t.Errorf("what the node keeps: %+v, %v", l.Operators, err)
	}
}

// checkAlone is what an operator asks a node for while the gateway is gone.
func checkAlone(t *testing.T, from *board, own, other string) {
	for _, tc := range []struct {
		want string
		args []string
	}{
		{other, []string{"mesh", "status", "--json"}},
		{`"cause": "power-on"`, []string{"mesh", "timeline", "--json"}},
		{"power-on", []string{"mesh", "timeline"}},
		{other, []string{"mesh", "topology", "--json"}},
		{own, []string{"mesh", "doctor", "--json"}}, // has the paths looked at
		{own, []string{"mesh", "doctor", "--last", "--json"}},
		{`"routing": "BATMAN_IV"`, []string{"mesh", "profile", "show", "--json"}},
		{`"channel":`, []string{"mesh", "channel", "show", "--json"}},
		{"[]", []string{"mesh", "channels", "--json"}},
		{`"name": "wg0"`, []string{"net", "interfaces", "--json"}},
		{"{", []string{"net", "leases", "--json"}}, // nobody is at its ports
		{"clients to the device: dns", []string{"net", "firewall"}},
		{`"name": "gateway"`, []string{"net", "dns", "--json"}},
		{"overlay", []string{"health", "--json"}},
		{"\x1f", []string{"support", "--out", "-"}},
	} {
		from.says(ctl.ExitOK, tc.want, append([]string{"--node", "bravo"}, tc.args...)...)
	}
}

func (d *board) try(code string) error {
	return d.mesh.CheckCode(context.Background(), model.CodeTry{Code: code, Where: "console tty1"})
}

// checkCodes: a device takes its own code, as the gateway shows it, and no other.
func checkCodes(t *testing.T, network identity.Key, gw, node *board) {
	shown := func(d *board, generation uint32) string {
		p, err := identity.ParsePublicKey(d.status().PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		c, err := nodecode.New(network, p, generation)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, d := range []*board{gw, node} {
		if err := d.try(strings.ToLower(shown(d, 0))); err != nil {
			t.Errorf("%s: %v", d.role, err)
		}
		if err := d.try("7K3M-Q0ZT-4WXP-B2D9"); !errors.Is(err, local.ErrInvalid) {
			t.Errorf("%s, wrong code: %v", d.role, err)
		}
		if err := errors.Join(d.hasEvent("code.accepted"), d.hasEvent("code.refused")); err != nil {
			t.Errorf("%s: %v", d.role, err)
		}
	}
	if err := gw.mesh.PutOperators(t.Context(), model.Operators{Codes: 1}); err != nil {
		t.Fatal(err)
	}
	next := shown(node, 1)
	until(t, "the node has another code", func() error { return node.try(next) })
	for range 5 {
		_ = node.try("x")
	}
	if err := node.try(next); !errors.Is(err, local.ErrBusy) {
		t.Errorf("after many wrong ones: %v", err)
	}
}

// checkSupport: all that either board keeps secret is searched for in what it
// gives away.
func checkSupport(t *testing.T, key identity.Key, gw, node *board) {
	if err := gw.mesh.PutClaimCode(t.Context(), "7K3M-Q0ZT-4WXPB"); err != nil {
		t.Fatal(err)
	}
	nodeCode := ""
	for _, d := range []*board{gw, node} {
		state, err := identity.Load(filepath.Join(d.root, paths.State, paths.Identity), nil)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(filepath.Join(d.root, paths.State, paths.BundleCopy))
		if err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Parse("kept", kept)
		if err != nil {
			t.Fatal(err)
		}
		if nodeCode, err = nodecode.New(key, state.Key.Public(), 0); err != nil {
			t.Fatal(err)
		}
		wg := state.Key.WireGuard()
		secrets := map[string]string{
			"seed": b64(state.Key.Seed()), "seed in hex": hex.EncodeToString(state.Key.Seed()), "WireGuard key": b64(wg[:]), "WireGuard key in hex": hex.EncodeToString(wg[:]),
			"network's seed": b64(key.Seed()), "password of the mesh": b.Mesh.PSK, "claim code": "7K3M-Q0ZT-4WXPB", "join token": b.Join.Token, "code": nodeCode,
		}
		known := maps.Clone(secrets)
		if d.role == model.RoleNode {
			delete(known, "network's seed")
			delete(known, "claim code")
		}
		said := strings.Join(slices.Collect(maps.Values(known)), "\n")
		babbles(t, filepath.Join(d.root, paths.GokrazySocket), fmt.Sprintf("a panic of the %s\n%s\nerr=%q\n", d.role, said, known))
		var file bytes.Buffer
		if err := d.mesh.Support(t.Context(), &file); err != nil {
			t.Fatal(err)
		}
		found := unpack(t, file.Bytes())
		for _, want := range []string{"status.json", "events.json", "health.json", "version.json", "meminfo.txt", "missing.txt", "net-firewall.json", "membership.json", "log/halo-agent.txt"} {
			if _, there := found["halo-support/"+want]; !there && !strings.Contains(found["halo-support/missing.txt"], want) {
				t.Errorf("%s: no %s among %d files", d.role, want, len(found))
			}
		}
		if !strings.Contains(found["halo-support/status.json"], state.Key.ID()) || !strings.Contains(found["halo-support/events.json"], "clock.started") {
			t.Errorf("%s: status and events: %.200s, %.200s", d.role, found["halo-support/status.json"], found["halo-support/events.json"])
		}
		for name, want := range map[string]string{"log/halo-mesh-now.txt": `msg="halo-mesh runs" node=` + state.Key.ID(), "log/halo-mesh.txt": "a panic of the " + string(d.role)} {
			if text := found["halo-support/"+name]; !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %s: %.200s", d.role, want, name, text)
			}
		}
		for name, text := range found {
			for what, secret := range secrets {
				if secret != "" && strings.Contains(text, secret) {
					t.Errorf("%s: the %s is in %s", d.role, what, name)
				}
			}
		}
	}
}

// babbles stands at gokrazy's socket, where every process has written all that it
// should not.
func babbles(t *testing.T, socket, text string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, text)
		w.(http.Flusher).Flush()
		<-r.Context().Done() // gokrazy's stream has no end
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
}

// unpack returns the files of a tar.gz.
func unpack(t *testing.T, b []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
	}
}
