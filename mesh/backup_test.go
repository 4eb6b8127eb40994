package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

const (
	envReal   = "HALO_TEST_REAL" // gateway-api itself, not what stands for it
	restarted = 7                // status of a process that would have restarted its machine
)

// realAPI is gateway-api beside halo-mesh.
func realAPI(ctx context.Context, root string) {
	at := func(p string) string { return filepath.Join(root, p) }
	c := gateway.Board(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	c.State, c.Identity, c.Socket, c.Mesh = paths.Dir(at(paths.State)), at(paths.RunIdentity), at(paths.GatewaySocket), at(paths.MeshSocket)
	c.Every, c.Poll = 200*time.Millisecond, 300*time.Millisecond
	if err := gateway.Run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "gateway-api:", err)
	}
}

// must runs haloctl on a board, and decodes what it prints.
func (d *board) must(out any, args ...string) {
	d.t.Helper()
	r, err := d.haloctl(append(args, "--json")...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%d: %s", r.Code, r.Err)
	}
	if err == nil && out != nil {
		err = json.Unmarshal([]byte(r.Out), out)
	}
	if err != nil {
		d.t.Fatalf("haloctl %s: %v", strings.Join(args, " "), err)
	}
}

// put writes a file for haloctl.
func (d *board) put(name, text string) (path string) {
	d.t.Helper()
	path = filepath.Join(d.root, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// claimCode waits for the code that the board shows.
func (d *board) claimCode() (code string) {
	d.t.Helper()
	until(d.t, "a claim code", func() error {
		b, err := os.ReadFile(filepath.Join(d.root, paths.ClaimNotice))
		_, text, ok := strings.Cut(string(b), "claim code ")
		if code = strings.TrimSpace(text); err == nil && !ok {
			err = errors.New("not yet")
		}
		return err
	})
	return code
}

func (d *board) ready() {
	d.t.Helper()
	until(d.t, "the API", func() error {
		r, err := d.haloctl("health")
		if err == nil && r.Code != 0 {
			err = errors.New(r.Err)
		}
		return err
	})
}

// TestAGatewayIsRestoredOntoAnotherCard: its node follows without being touched, and
// refuses the former card, whenever that comes back.
func TestAGatewayIsRestoredOntoAnotherCard(t *testing.T) {
	t.Parallel()
	gwBundle, nodeBundle, key := bundles(t)
	lost, node := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle)
	lost.env = []string{envReal + "=1"}
	lost.start()
	node.start()
	ports := hub(t, lost, node)
	lost.ready()
	until(t, "page of the first card", node.fetch)
	password := lost.put("password", "correct horse battery")
	lost.must(nil, "claim", "--code-file", lost.put("code", lost.claimCode()), "--password-file", password)
	phrase := lost.put("phrase", "a phrase of a backup")
	file := filepath.Join(lost.root, "saved.age")
	lost.must(nil, "backup", "create", file, "--passphrase-file", phrase)
	member := func() model.Membership {
		t.Helper()
		m, err := node.mesh.Membership(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	before := member()
	lost.cut()
	began := time.Now()
	step := func(what string) { t.Logf("%s after %s", what, time.Since(began).Round(time.Second)) }

	fresh := newBoard(t, model.RoleGateway, nil) // of no network
	fresh.env = lost.env
	fresh.start()
	fresh.ready()
	if s := fresh.status(); s.Node == key.ID() {
		t.Fatal("the fresh card has the key already")
	}
	var done apitype.Restored
	fresh.must(&done, "restore", file, "--yes", "--passphrase-file", phrase, "--code-file", fresh.put("code", fresh.claimCode()))
	if done.Node != key.ID() || done.Epoch <= before.Epoch {
		t.Errorf("it becomes %+v, the membership was of epoch %d", done, before.Epoch)
	}
	exit, ok := errors.AsType[*exec.ExitError](fresh.cmd.Wait())
	if !ok || exit.ExitCode() != restarted {
		t.Fatalf("the machine did not restart: %v", exit)
	}
	step("restarts")
	fresh.start()
	joinHub(t, ports[1], fresh)
	until(t, "the node is a member of the restored card", func() error {
		m := member()
		if m.Epoch < done.Epoch || m.GatewayWireGuardKey == before.GatewayWireGuardKey {
			return fmt.Errorf("got %+v", m)
		}
		return node.fetch()
	})
	step("the node is its member")
	after := member()
	if after.OverlayV4 != before.OverlayV4 || after.CA != before.CA {
		t.Errorf("the node was %+v and is %+v", before, after)
	}
	if s := fresh.status(); s.Node != key.ID() || s.BootCounter < 1000 {
		t.Errorf("it is %s, boot %d", s.Node, s.BootCounter)
	}
	fresh.ready()
	fresh.must(nil, "login", "--password-file", password)
	var nodes struct {
		Items []apitype.Node `json:"items"`
	}
	if fresh.must(&nodes, "node", "list"); len(nodes.Items) != 2 {
		t.Errorf("got %+v", nodes.Items)
	}

	// The former card comes back while the restored one serves.
	lost.start()
	joinHub(t, ports[1], lost)
	until(t, "it stands down", func() error { return lost.standsDown(key.Public()) })
	step("the former card stands down")
	until(t, "page of the restored card still", node.fetch) // both had one address for a moment
	if m := member(); m != after {
		t.Errorf("the node has another gateway: %+v", m)
	}
	lost.cut()

	// And while that is off.
	fresh.cut()
	lost.start()
	joinHub(t, ports[1], lost)
	until(t, "the node shows it the higher epoch", func() error {
		s, err := lost.mesh.Status(t.Context())
		if err == nil && s.HeardEpoch < done.Epoch {
			err = fmt.Errorf("it heard of epoch %d, want %d", s.HeardEpoch, done.Epoch)
		}
		return err
	})
	step("the node shows the former card the epoch")
	lost.ready()
	lost.must(nil, "login", "--password-file", password)
	until(t, "it leaves it to a person", func() error {
		var list struct {
			Items []apitype.Event `json:"items"`
		}
		lost.must(&list, "event", "list", "--kind", "gateway.epoch-behind")
		if len(list.Items) == 0 {
			return errors.New("no event yet")
		}
		return nil
	})
	if m := member(); m != after {
		t.Errorf("the node was %+v and went over to the former card: %+v", after, m)
	}
	if node.fetch() == nil {
		t.Error("the node speaks with the former card")
	}
	lost.cut()
	fresh.start()
	joinHub(t, ports[1], fresh)
	until(t, "page of the restored card", node.fetch)
	step("the restored card serves again")
}
