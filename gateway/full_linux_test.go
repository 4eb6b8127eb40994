package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"halo.internal/gateway/events"
	"halo.internal/gateway/reserve"
	"halo.internal/gateway/store"
	"halo.internal/gateway/topology"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
	"halo.internal/model/wire"
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

// Each thing that people and nodes have the gateway write, on a card that has no room: it says
// so, nothing of what there is gets lost, nothing of what it has refused is so, and with room
// again it goes on without a restart.
func TestAFullCardAtEachWritePath(t *testing.T) {
	t.Parallel()
	g := startAlone(t, smallCard(t, "40m"))
	g.claim(printedCode(t, g.console))
	var kept apitype.APIToken
	g.must("POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "kept", Scopes: []string{apitype.ScopeNodesRead}}, &kept)
	g.file(apitype.CreateBackup{Passphrase: phrase})
	network, err := identity.Load(paths.Dir(g.dir).File(paths.Identity), nil)
	if err != nil {
		t.Fatal(err)
	}
	mast := identity.New()
	g.join(network.Key, mast)
	node := "/v1/nodes/" + mast.ID()
	g.heartbeat(network.Key, model.NodeStatus{Role: model.RoleGateway, Clients: []model.Client{{MAC: "02:00:00:00:00:07", Name: "phone", Iface: "br0", Present: true}}})
	var clients apitype.EndpointList
	eventually(t, "a client", func() error {
		g.must("GET", "/v1/endpoints", nil, &clients)
		if len(clients.Items) != 1 {
			return fmt.Errorf("there are %+v", clients.Items)
		}
		return nil
	})
	client := "/v1/endpoints/" + clients.Items[0].ID
	named := "before"
	g.must("PATCH", client, apitype.UpdateEndpoint{Name: &named}, nil)
	var job apitype.Job
	g.must("POST", node+"/commands", apitype.CreateCommand{Command: model.Command{Kind: model.CommandScan}, ExpiresS: 3600}, &job)
	var happened apitype.EventList
	eventually(t, "an event", func() error {
		if g.must("GET", "/v1/events?kind=node.joined", nil, &happened); len(happened.Items) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	// What people can change, and look at.
	stored := []string{"/api/auth/tokens", "/api/auth/users", "/v1/admin/join-tokens", "/v1/brain/neurons", "/v1/events?kind=node.joined", "/v1/jobs", "/v1/model/replacements", node, client, "/v1/settings", "/v1/trust/macs", "/v1/firewall"}
	look := func() map[string]string {
		t.Helper()
		all := map[string]string{}
		for _, path := range stored {
			var body json.RawMessage
			if _, err := g.do("GET", path, nil, &body); err != nil {
				t.Errorf("reading %s: %v", path, err)
			}
			all[path] = string(body)
		}
		return all
	}
	before := look()

	free := fill(t, g.dir)
	if err := os.Remove(filepath.Join(g.dir, paths.GatewayDir, "reserve")); err != nil { // somebody else takes that, too
		t.Fatal(err)
	}
	fill(t, g.dir)

	unavailable := func(what string, status int, err error) {
		t.Helper()
		p, ok := errors.AsType[*apitype.Problem](err)
		if !ok || status != http.StatusServiceUnavailable || p.Type != apitype.ProblemStore {
			t.Errorf("%s: got %d, %v; want 503 %s", what, status, err, apitype.ProblemStore)
		}
	}
	token := apitype.CreateJoinToken{Uses: 1, ExpiresS: 3600}
	made := 0
	for range 40 { // what room the log has in its file is used up first
		if _, err := g.do("POST", "/v1/admin/join-tokens", token, nil); err != nil {
			break
		}
		made++
	}
	if made == 40 {
		t.Fatal("the card takes all")
	}
	before["/v1/admin/join-tokens"] = look()["/v1/admin/join-tokens"]
	stranger := identity.New()
	_, status, err := g.tryJoin(network.Key, stranger)
	unavailable("a node's join", status, err)
	renamed, other := "other", "after"
	for _, w := range []struct {
		what, method, path string
		in                 any
	}{
		{"a change", "POST", "/v1/admin/join-tokens", token},
		{"a login", "POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: password}},
		{"a backup", "POST", "/v1/backup", apitype.CreateBackup{Passphrase: phrase}},
		{"the epoch", "POST", "/v1/network/epoch/raise", nil},
		{"an API token", "POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "more", Scopes: []string{apitype.ScopeNodesRead}}},
		{"the end of one", "DELETE", "/api/auth/tokens/" + kept.ID, nil},
		{"a user", "POST", "/api/auth/users", apitype.CreateUser{Username: "anna", Password: password, Role: apitype.RoleViewer}},
		{"a node's name", "PATCH", node, apitype.UpdateNode{Name: &renamed}},
		{"a revocation", "DELETE", node, nil},
		{"a command", "POST", node + "/commands", apitype.CreateCommand{Command: model.Command{Kind: model.CommandScan}}},
		{"a command taken back", "DELETE", fmt.Sprint("/v1/jobs/", job.ID), nil},
		{"a client's name", "PATCH", client, apitype.UpdateEndpoint{Name: &other}},
		{"a client forgotten", "DELETE", client, nil},
		{"an acknowledgement", "POST", fmt.Sprintf("/v1/events/%d/acknowledge", happened.Items[0].ID), apitype.Acknowledge{}},
		{"a trusted MAC", "POST", "/v1/trust/macs", apitype.TrustMAC{MAC: "dc:a6:32:00:00:0a"}},
		{"a neuron", "POST", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01"}},
		{"other codes", "POST", "/v1/trust/node-codes/renew", nil},
	} {
		status, err := g.do(w.method, w.path, w.in, nil)
		unavailable(w.what, status, err)
	}
	for _, path := range []string{"/v1/nodes", "/v1/events", "/v1/audit", "/v1/backup", "/v1/system/info"} {
		if _, err := g.do("GET", path, nil, nil); err != nil {
			t.Errorf("reading %s: %v", path, err)
		}
	}
	as := func(when string) {
		t.Helper()
		for path, now := range look() {
			if now != before[path] {
				t.Errorf("%s: %s is %s\nwant %s", when, path, now, before[path])
			}
		}
		if _, err := g.do("GET", "/v1/nodes/"+stranger.ID(), nil, nil); err == nil {
			t.Errorf("%s: the node whose join was refused is a member", when)
		}
	}
	as("while it is full")
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
		_, err := g.do("POST", "/v1/trust/macs", apitype.TrustMAC{MAC: "dc:a6:32:00:00:0b"}, nil)
		return err
	})
	before["/v1/trust/macs"] = look()["/v1/trust/macs"]
	as("with room again")
	g.file(apitype.CreateBackup{Passphrase: phrase})
	g.join(network.Key, stranger)
	g.must("PATCH", client, apitype.UpdateEndpoint{Name: &other}, nil)
	g.must("DELETE", fmt.Sprint("/v1/jobs/", job.ID), nil, &job)
	if job.State != apitype.JobCancelled {
		t.Errorf("got %+v", job)
	}
}

// heartbeat is what the gateway's own agent says of the device.
func (c *client) heartbeat(key identity.Key, status model.NodeStatus) {
	c.t.Helper()
	address := strings.TrimPrefix(c.base, "http://")
	conn, _, err := websocket.Dial(c.t.Context(), "ws://"+address+"/v1/nodes/stream", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.CloseNow() })
	read := func() wire.Message {
		c.t.Helper()
		_, b, err := conn.Read(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		m, err := wire.Unmarshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		return m
	}
	write := func(m wire.Message) {
		c.t.Helper()
		b, err := wire.Marshal(m)
		if err == nil {
			err = conn.Write(c.t.Context(), websocket.MessageBinary, b)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	challenge, ok := read().(wire.Challenge)
	public := key.Public()
	h := wire.Hello{Key: public[:], Boot: 1, Version: "test"}
	h.Signature = key.Sign(wire.StreamContext, h.SignedBytes(challenge.Nonce, address))
	if write(h); ok {
		_, ok = read().(wire.Welcome)
	}
	if !ok {
		c.t.Fatal("the gateway does not take its own agent")
	}
	write(wire.StatusMessage{Status: status})
}

// A first start on a card that gets room a little at a time finds too little for each thing in
// turn: its databases, the key of the secrets in them, the CA, the first rows. It waits, or
// ends and is started again, as a board's supervisor does, and then all is as it would be.
func TestAFirstStartThatGetsRoomBitByBit(t *testing.T) {
	t.Parallel()
	const piece = 32 << 10
	dir := smallCard(t, "8m")
	var pieces []string
	for i := 0; ; i++ {
		name := filepath.Join(dir, fmt.Sprint("piece-", i))
		pieces = append(pieces, name)
		if err := os.WriteFile(name, make([]byte, piece), 0o600); err != nil {
			break
		}
	}
	fill(t, dir)
	plain := freeAddress(t)
	console := &output{}
	c := Laptop(dir, []string{plain}, console, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if err := Run(ctx, c); err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("the gateway ended with %v", err)
			}
		}
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(stop)
	api := newClient(t, "http://"+plain)
	given := 0
	give := func() {
		t.Helper()
		if len(pieces) == 0 {
			t.Fatal("the whole card is not enough")
		}
		if err := os.Remove(pieces[len(pieces)-1]); err != nil {
			t.Fatal(err)
		}
		pieces, given = pieces[:len(pieces)-1], given+piece
	}
	for range 12 { // the first database alone takes more
		give()
	}
	for isReady := false; !isReady; {
		give()
		for end := time.Now().Add(retryPrepare / 2); !isReady && time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
			_, err := api.do("GET", "/capabilities", nil, nil)
			isReady = err == nil
		}
	}
	t.Logf("it was ready with %d KiB", given>>10)
	for _, p := range pieces {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	api.claim(printedCode(t, console))
	stop()
	start(t, c)
	api.ready()
	api.login()
	var l apitype.EventList
	for _, kind := range []string{"seal.lost", "trust.ca.damaged", "gateway.epoch-raised", "store.config.lost", "store.config.restored"} {
		if api.must("GET", "/v1/events?kind="+kind, nil, &l); len(l.Items) != 0 {
			t.Errorf("got %+v", l.Items)
		}
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
