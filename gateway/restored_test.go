package gateway

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/api"
	engine "halo.internal/gateway/backup"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/backup"
	"halo.internal/model/claim"
	"halo.internal/model/paths"
)

const phrase = "a phrase of a backup"

// lone is a gateway that runs alone.
type lone struct {
	*client
	dir     string
	console *output
	log     *output
	stop    func()
}

func startAlone(t *testing.T, dir string) *lone {
	t.Helper()
	g := &lone{dir: dir, console: &output{}, log: &output{}}
	plain := freeAddress(t)
	g.stop = start(t, Laptop(dir, []string{plain}, g.console, slog.New(slog.NewTextHandler(g.log, nil))))
	g.client = newClient(t, "http://"+plain)
	g.ready()
	return g
}

// file asks for a backup.
func (c *client) file(q apitype.CreateBackup) []byte {
	c.t.Helper()
	status, b := c.raw("POST", "/v1/backup", "application/json", c.jwt, mustJSON(c.t, q))
	if status != http.StatusOK {
		c.t.Fatalf("backup: %d %s", status, b)
	}
	return b
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *client) raw(method, path, kind, token string, body []byte) (int, []byte) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, b
}

// ticket proves the claim code for a restore.
func (c *client) ticket(code string) string {
	c.t.Helper()
	x := claim.Exchange{ClientNonce: claim.NewNonce()}
	r := apitype.ClaimRequest{ClientNonce: base64.StdEncoding.EncodeToString(x.ClientNonce)}
	var a apitype.ClaimAnswer
	c.must("POST", "/api/auth/claim", r, &a)
	salt, errSalt := base64.StdEncoding.DecodeString(a.Salt)
	var errNonce error
	x.ServerNonce, errNonce = base64.StdEncoding.DecodeString(a.ServerNonce)
	key, err := claim.Derive(code, salt)
	if err := errors.Join(err, errSalt, errNonce); err != nil {
		c.t.Fatal(err)
	}
	proof, err := key.ClientProof(x, claim.ForRestore, "")
	if err != nil {
		c.t.Fatal(err)
	}
	r.ServerNonce, r.Restore, r.Proof = a.ServerNonce, true, base64.StdEncoding.EncodeToString(proof)
	c.must("POST", "/api/auth/claim", r, &a)
	return a.RestoreTicket
}

// form is the body of a restore.
func form(t *testing.T, passphrase string, file []byte) (kind string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	err := m.WriteField("passphrase", passphrase)
	if err == nil {
		var w io.Writer
		if w, err = m.CreateFormFile("backup", "halo.age"); err == nil {
			_, err = w.Write(file)
		}
	}
	if err := errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	return m.FormDataContentType(), b.Bytes()
}

func (c *client) restore(token, passphrase string, file []byte) (int, apitype.Restored, apitype.Problem) {
	c.t.Helper()
	kind, body := form(c.t, passphrase, file)
	status, b := c.raw("POST", "/v1/restore", kind, token, body)
	var r apitype.Restored
	var p apitype.Problem
	var err error
	if status == http.StatusOK {
		err = json.Unmarshal(b, &r)
	} else {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		c.t.Fatalf("%d: %s: %v", status, b, err)
	}
	return status, r, p
}

func (c *client) login() apitype.Tokens {
	c.t.Helper()
	var tokens apitype.Tokens
	c.jwt = ""
	c.must("POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: password}, &tokens)
	c.jwt = tokens.AccessToken
	return tokens
}

func TestAGatewayGoesToAnotherCard(t *testing.T) {
	t.Parallel()
	lost := startAlone(t, t.TempDir())
	lost.claim(printedCode(t, lost.console))
	refresh := lost.login().RefreshToken
	var token apitype.APIToken
	lost.must("POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "grafana", Scopes: []string{apitype.ScopeNodesRead}}, &token)
	id, err := identity.Load(paths.Dir(lost.dir).File(paths.Identity), nil)
	if err != nil {
		t.Fatal(err)
	}
	node := identity.New()
	member := lost.join(id.Key, node)
	var before apitype.SystemInfo
	lost.must("GET", "/v1/system/info", nil, &before)
	file := lost.file(apitype.CreateBackup{Passphrase: phrase, Telemetry: true})
	var s apitype.BackupStatus
	lost.must("GET", "/v1/backup", nil, &s)
	if s.Last == nil || s.Last.By != "user:root" || !s.Last.Telemetry || s.Bytes == 0 {
		t.Errorf("the status is %+v", s)
	}
	after := identity.New()
	lost.join(id.Key, after)
	lost.stop()
	if list, err := os.ReadDir(filepath.Join(lost.dir, paths.GatewayDir)); err != nil || slices.ContainsFunc(list, func(e os.DirEntry) bool { return strings.Contains(e.Name(), "backup") }) {
		t.Errorf("the backup left something: %v, %v", list, err)
	}

	fresh := startAlone(t, t.TempDir())
	code := printedCode(t, fresh.console)
	if status, _, p := fresh.restore("", phrase, file); status != http.StatusUnauthorized {
		t.Errorf("without the code: %d %+v", status, p)
	}
	ticket := fresh.ticket(code)
	if status, _ := fresh.do("GET", "/v1/nodes", nil, nil); status != http.StatusUnauthorized {
		t.Errorf("nodes without a login: %d", status)
	}
	fresh.jwt = ticket
	if status, err := fresh.do("GET", "/v1/nodes", nil, nil); status != http.StatusForbidden {
		t.Errorf("a ticket for a restore is good for more: %d %v", status, err)
	}
	fresh.jwt = ""
	flipped := bytes.Clone(file)
	flipped[len(file)-3000] ^= 1
	for _, tc := range []struct {
		name, phrase string
		file         []byte
		status       int
		typ          string
	}{
		{"wrong passphrase", "a phrase of another", file, 422, apitype.ProblemBackupPassphrase},
		{"cut short", phrase, file[:len(file)-1], 422, apitype.ProblemBackupDamaged},
		{"flipped", phrase, flipped, 422, apitype.ProblemBackupDamaged},
		{"something else", phrase, []byte("a photograph"), 422, apitype.ProblemBackupDamaged},
		{"nothing", phrase, nil, 422, apitype.ProblemBackupDamaged},
	} {
		status, _, p := fresh.restore(ticket, tc.phrase, tc.file)
		if status != tc.status || p.Type != tc.typ || strings.Contains(p.Detail, tc.phrase) {
			t.Errorf("%s: got %d %+v", tc.name, status, p)
		}
		if _, err := os.Stat(filepath.Join(fresh.dir, paths.GatewayDir, paths.RestoreDir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something is left: %v", tc.name, err)
		}
	}
	for name, body := range map[string]string{
		"no form":      "{}",
		"another form": "--x\r\nContent-Disposition: form-data; name=\"backup\"\r\n\r\nabc\r\n--x--\r\n",
		"cut off":      "--x\r\nContent-Disposition: form-data; name=\"passphrase\"\r\n\r\n" + phrase + "\r\n--x\r\nContent-Disposition: form-data; name=\"backup\"\r\n\r\nage-enc",
	} {
		kind := "multipart/form-data; boundary=x"
		if name == "no form" {
			kind = "application/json"
		}
		if status, b := fresh.raw("POST", "/v1/restore", kind, ticket, []byte(body)); status != 422 && status != 415 {
			t.Errorf("%s: got %d %s", name, status, b)
		}
	}
	var capable apitype.Capabilities
	if fresh.must("GET", "/capabilities", nil, &capable); capable.Claimed {
		t.Error("what came to nothing claimed the gateway")
	}

	status, r, p := fresh.restore(ticket, phrase, file)
	if status != http.StatusOK || r.Node != before.Node || r.Epoch <= member.Epoch {
		t.Fatalf("got %d %+v %+v", status, r, p)
	}
	eventually(t, "it starts as the gateway of the backup", func() error {
		var tokens apitype.Tokens
		_, err := fresh.do("POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: password}, &tokens)
		fresh.jwt = tokens.AccessToken
		return err
	})
	var now apitype.SystemInfo
	fresh.must("GET", "/v1/system/info", nil, &now)
	if now.Node != before.Node || now.CASHA256 != before.CASHA256 || now.Boot < before.Boot+bootsAhead {
		t.Errorf("it is %+v, the lost one was %+v", now, before)
	}
	again := fresh.join(id.Key, node)
	if again.OverlayV4 != member.OverlayV4 || again.Epoch < r.Epoch {
		t.Errorf("the node gets %+v, it had %+v", again, member)
	}
	var nodes apitype.NodeList
	fresh.must("GET", "/v1/nodes", nil, &nodes)
	if len(nodes.Items) != 2 {
		t.Errorf("got nodes %+v", nodes.Items)
	}
	if status, _ := fresh.do("POST", "/api/auth/refresh", apitype.RefreshRequest{RefreshToken: refresh}, nil); status != http.StatusUnauthorized {
		t.Errorf("a login of before the backup goes on: %d", status)
	}
	admin := fresh.jwt
	fresh.jwt = token.Token
	fresh.must("GET", "/v1/nodes", nil, nil)
	fresh.jwt = admin
	eventually(t, "events tell of it", func() error {
		var l apitype.EventList
		_, err := fresh.do("GET", "/v1/events?kind=gateway.restored", nil, &l)
		if len(l.Items) != 1 || l.Items[0].Fields["backup"] != r.ID {
			err = errors.Join(err, fmt.Errorf("got %+v", l.Items))
		}
		return err
	})
	// The gateway of the fresh card's own network is kept aside, as after another bundle.
	if list, err := filepath.Glob(filepath.Join(fresh.dir, paths.GatewayDir+"-n-*", "config.db")); err != nil || len(list) != 1 {
		t.Errorf("set aside are %v, %v", list, err)
	}
	if status, _, p := fresh.restore(fresh.jwt, phrase, file); status != http.StatusConflict || p.Type != apitype.ProblemNotFresh {
		t.Errorf("a restore over a gateway with nodes: %d %+v", status, p)
	}
	for _, secret := range []string{phrase, code, ticket} {
		for _, g := range []*lone{lost, fresh} {
			if strings.Contains(g.log.String(), secret) {
				t.Errorf("a log has %q in it", secret)
			}
		}
	}
	fresh.stop()
	back := startAlone(t, fresh.dir)
	back.login()
	var still apitype.SystemInfo
	back.must("GET", "/v1/system/info", nil, &still)
	if still.Node != before.Node {
		t.Errorf("after a restart it is %s", still.Node)
	}
}

// An admin of a gateway that has no nodes may, and a release that is older says why it
// cannot.
func TestABackupOfANewerRelease(t *testing.T) {
	t.Parallel()
	lost := startAlone(t, t.TempDir())
	lost.claim(printedCode(t, lost.console))
	path := filepath.Join(lost.dir, paths.ConfigDB)
	lost.stop()
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := db.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.Load(paths.Dir(lost.dir).File(paths.Identity), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := startAlone(t, t.TempDir())
	fresh.claim(printedCode(t, fresh.console))
	var file bytes.Buffer
	w, err := backup.NewWriter(&file, phrase, backup.Manifest{ID: "b", NetworkKey: id.Key.Public().Base64(), Node: id.Key.ID(), Schema: schema + 1})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if status, _, p := fresh.restore(fresh.jwt, phrase, file.Bytes()); status != 422 || p.Type != apitype.ProblemBackupNewer {
		t.Errorf("got %d %+v", status, p)
	}
}

// TestARestoredGatewayRaisesItsEpochUntilANodeComes: whoever has restored it meant it to
// replace the other; once nodes go by it, it is a card like any other.
func TestARestoredGatewayRaisesItsEpochUntilANodeComes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, _, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p := &prepared{config: db}
	c := clock.New(time.Now, time.Time{})
	log := events.New(db, c, 1, slog.New(slog.DiscardHandler))
	nodes, err := registry.New(t.Context(), registry.Config{DB: db, Clock: c, Events: log, Key: identity.New(), Epoch: func() uint64 { return 7 }})
	if err != nil {
		t.Fatal(err)
	}
	may := func(want bool) {
		t.Helper()
		if got, err := p.replaces(nodes)(t.Context()); err != nil || got != want {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
	}
	may(true)
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, admitted_by, joined) VALUES ('n-a', 'a', 'node', 'k', 'w', '10.42.1.2', 'token:x', 1)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	may(false)
	for _, from := range []string{"config.db.copy-1", "backup b1"} {
		if err := p.rememberRestored(t.Context(), store.Repair{Restored: from}); err != nil {
			t.Fatal(err)
		}
		may(strings.HasPrefix(from, engine.From))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.followRestored(ctx, nodes) }()
	nodes.Online(nodes.Gateway(), 1) // its own agent
	may(true)
	offline := nodes.Online("n-a", 1)
	may(false)
	eventually(t, "it is remembered", func() error {
		v, err := db.Setting(t.Context(), settingRestored, nil)
		if err == nil && v != nil {
			err = errors.New("not yet")
		}
		return err
	})
	offline()
	may(false)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestARestoreGoesOnlyOnceItIsCarriedOut: what cannot be written ends a start, and the next
// one carries the restore out all the same.
func TestARestoreGoesOnlyOnceItIsCarriedOut(t *testing.T) {
	key := identity.New()
	text := bundleOf(t, key)
	for _, name := range []string{paths.BundleCopy, paths.Restored} {
		t.Run(name, func(t *testing.T) {
			d := &daemon{Config: Config{State: paths.Dir(t.TempDir())}}
			file, blocked := d.State.File(paths.Restore), d.State.File(name)
			if err := os.WriteFile(file, mustJSON(t, model.MeshRestore{ID: "b", MeshBackup: model.MeshBackup{Bundle: text, Boot: 57}}), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(blocked, 0o700); err != nil { // no file takes its place
				t.Fatal(err)
			}
			if err := d.becomeRestored(); err == nil {
				t.Fatal("it was carried out")
			}
			if _, err := os.Stat(file); err != nil {
				t.Fatalf("the restore is gone: %v", err)
			}
			if err := os.Remove(blocked); err != nil {
				t.Fatal(err)
			}
			if err := d.becomeRestored(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the restore is still there: %v", err)
			}
			if id, err := identity.Load(d.State.File(paths.Identity), nil); err != nil || id.Key.ID() != key.ID() {
				t.Errorf("it did not become the other: %v", err)
			}
		})
	}
}

// lateKeeper is a halo-mesh whose answer is lost.
type lateKeeper struct {
	meshKeeper
	file string // of the restore; empty: it was not written
}

func (k lateKeeper) Restore(context.Context, model.MeshRestore) error {
	if k.file != "" {
		if err := os.WriteFile(k.file, nil, 0o600); err != nil {
			return err
		}
	}
	return errors.New("no answer")
}

// TestWhatADecidedRestoreNeedsIsNotThrownAway: also where nobody has heard that it is decided.
func TestWhatADecidedRestoreNeedsIsNotThrownAway(t *testing.T) {
	for _, decided := range []bool{true, false} {
		t.Run(fmt.Sprint(decided), func(t *testing.T) {
			d := &daemon{Config: Config{State: paths.Dir(t.TempDir())}}
			keeper := lateKeeper{}
			if decided {
				keeper.file = d.State.File(paths.Restore)
			}
			b := &backups{mesh: keeper, decided: d.restoreDecided}
			if err := b.hand(t.Context(), model.MeshRestore{}); err == nil {
				t.Fatal("the answer was not lost")
			}
			if b.handed.Load() != decided {
				t.Errorf("handed: %t", !decided)
			}
			if !decided {
				return
			}
			again := &backups{decided: d.restoreDecided} // as after a restart of gateway-api alone
			if _, err := again.Restore(t.Context(), nil, phrase, "user:root"); !errors.Is(err, api.ErrBackupBusy) {
				t.Errorf("got %v", err)
			}
		})
	}
}
