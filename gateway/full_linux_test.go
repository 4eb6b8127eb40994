package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/gateway/events"
	"halo.internal/gateway/reserve"
	"halo.internal/gateway/store"
	"halo.internal/gateway/topology"
	"halo.internal/health"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// smallCard returns a folder on a file system of its own.
func smallCard(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a small file system is needed, and root to make it: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no octet free, not even those of the reserve, and returns what gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.OpenFile(ballast, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := 64 << 10; chunk >= 1; chunk /= 64 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, chunk))
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
	}
}

// Each thing that the gateway writes, on a card that has no room: it says so, nothing of
// what there is gets lost, and with room again it goes on without a restart.
func TestAFullCardAtEachWritePath(t *testing.T) {
	t.Parallel()
	g := startAlone(t, smallCard(t, "40m"))
	g.claim(printedCode(t, g.console))
	var kept apitype.APIToken
	g.must("POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "kept", Scopes: []string{apitype.ScopeNodesRead}}, &kept)
	g.file(apitype.CreateBackup{Passphrase: phrase})
	free := fill(t, g.dir)
	if err := os.Remove(filepath.Join(g.dir, paths.GatewayDir, "reserve")); err != nil { // somebody else takes that, too
		t.Fatal(err)
	}
	fill(t, g.dir)

	unavailable := func(what, method, path string, in any) {
		t.Helper()
		status, err := g.do(method, path, in, nil)
		p, ok := errors.AsType[*apitype.Problem](err)
		if !ok || status != http.StatusServiceUnavailable || p.Type != apitype.ProblemStore {
			t.Errorf("%s: got %d, %v; want 503 %s", what, status, err, apitype.ProblemStore)
		}
	}
	for range 40 { // what room the log has in its file is used up first
		if _, err := g.do("POST", "/v1/admin/join-tokens", apitype.CreateJoinToken{Uses: 1, ExpiresS: 3600}, nil); err != nil {
			break
		}
	}
	unavailable("a change", "POST", "/v1/admin/join-tokens", apitype.CreateJoinToken{Uses: 1, ExpiresS: 3600})
	unavailable("a login", "POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: password})
	unavailable("a backup", "POST", "/v1/backup", apitype.CreateBackup{Passphrase: phrase})
	unavailable("the epoch", "POST", "/v1/network/epoch/raise", nil)
	for _, path := range []string{"/v1/nodes", "/v1/events", "/v1/audit", "/api/auth/tokens", "/v1/backup", "/v1/system/info"} {
		if _, err := g.do("GET", path, nil, nil); err != nil {
			t.Errorf("reading %s: %v", path, err)
		}
	}
	eventually(t, "/health says so", func() error {
		r, err := g.health()
		if err == nil && r.State == health.OK {
			err = errors.New("all is well")
		}
		return err
	})
	if left, err := filepath.Glob(filepath.Join(g.dir, paths.GatewayDir, "backup*")); err != nil || len(left) > 0 {
		t.Errorf("the backup that failed left %v, %v", left, err)
	}

	free()
	eventually(t, "it goes on", func() error {
		_, err := g.do("POST", "/v1/admin/join-tokens", apitype.CreateJoinToken{Uses: 1, ExpiresS: 3600}, nil)
		return err
	})
	g.file(apitype.CreateBackup{Passphrase: phrase})
	var l apitype.APITokenList
	if g.must("GET", "/api/auth/tokens", nil, &l); len(l.Items) != 1 || l.Items[0].ID != kept.ID {
		t.Errorf("got %+v", l.Items)
	}
}

// A card that is full when the gateway starts: the reserve lets it.
func TestAStartOnAFullCard(t *testing.T) {
	t.Parallel()
	dir := smallCard(t, "40m")
	g := startAlone(t, dir)
	g.claim(printedCode(t, g.console))
	g.stop()
	fill(t, dir)
	if _, err := os.Stat(filepath.Join(dir, paths.GatewayDir, "reserve")); err != nil {
		t.Fatal(err)
	}
	again := startAlone(t, dir)
	again.login()
	if r, err := again.health(); err != nil || r.State == health.OK {
		t.Errorf("health says %s, %v", r.State, err)
	}
}

// The first start of all finds no room: it waits, says so, and begins once there is.
func TestAFirstStartOnAFullCard(t *testing.T) {
	t.Parallel()
	dir := smallCard(t, "8m")
	free := fill(t, dir)
	plain := freeAddress(t)
	console := &output{}
	start(t, Laptop(dir, []string{plain}, console, quiet()))
	c := newClient(t, "http://"+plain)
	eventually(t, "/health says what is missing", func() error {
		r, err := c.health()
		if err == nil && r.State != health.Failed {
			err = fmt.Errorf("it is %s: %s", r.State, r.Detail)
		}
		return err
	})
	free()
	c.ready()
	c.claim(printedCode(t, console))
}

// A backup that has no room on the fresh card changes nothing there.
func TestARestoreOntoATooSmallCard(t *testing.T) {
	t.Parallel()
	lost := startAlone(t, t.TempDir())
	lost.claim(printedCode(t, lost.console))
	file := lost.file(apitype.CreateBackup{Passphrase: phrase})
	small := startAlone(t, smallCard(t, "14m"))
	code := printedCode(t, small.console)
	if status, _, p := small.restore(small.ticket(code), phrase, file); status != http.StatusRequestEntityTooLarge || p.Type != apitype.ProblemBackupTooLarge {
		t.Errorf("got %d %+v", status, p)
	}
	small.claim(code)
	if n, err := reserve.Free(small.dir); err != nil || n == 0 {
		t.Errorf("free are %d, %v", n, err)
	}
}

// The history of the network's picture on a card that has no room: /health and an event say
// so, what is drawn waits in RAM, and with room again it is on the card.
func TestAFullCardAndTheNetworksPicture(t *testing.T) {
	dir := smallCard(t, "8m")
	d := newDaemon(Laptop(dir, nil, io.Discard, quiet()))
	if err := os.MkdirAll(filepath.Dir(d.State.File(paths.TopologyDB)), 0o700); err != nil {
		t.Fatal(err)
	}
	config, _, err := store.OpenConfig(t.Context(), filepath.Join(t.TempDir(), "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	log := events.New(config, d.clock, 1, quiet())
	kept := d.openHistory(t.Context(), log)
	ctx, cancel := context.WithCancel(t.Context())
	var owned sync.WaitGroup
	owned.Go(func() { _ = log.Run(ctx) })
	owned.Go(func() { _ = kept.run(ctx) })
	t.Cleanup(func() {
		cancel()
		owned.Wait()
		if err := errors.Join(kept.close(), config.Close()); err != nil {
			t.Error(err)
		}
	})
	frames := 0
	draw := func(n int) {
		t.Helper()
		for range n {
			frames++
			if err := kept.Append(time.Now(), topology.FrameDelta, make([]byte, 4<<10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := func() (n int) {
		t.Helper()
		for _, err := range kept.Range(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	is := func(state health.State, kind string) error {
		for _, c := range d.health.Report().Checks {
			if c.Name == checkTopology && c.State != state {
				return fmt.Errorf("it is %s: %s", c.State, c.Detail)
			}
		}
		list, _, err := log.List(t.Context(), events.Query{Kind: kind, Limit: 1})
		if err == nil && len(list) == 0 {
			err = fmt.Errorf("there is no event %s", kind)
		}
		return err
	}
	free := fill(t, dir)
	draw(64) // more than waits for five minutes
	eventually(t, "/health and an event say that the card is full", func() error { return is(health.Degraded, "store.topology.unavailable") })
	if got := all(); got != frames {
		t.Errorf("%d frames are answered, want %d", got, frames)
	}
	free()
	draw(64)
	eventually(t, "it goes on", func() error { return is(health.OK, "store.topology.available") })
	if got := all(); got != frames {
		t.Errorf("%d frames are there, want %d", got, frames)
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
