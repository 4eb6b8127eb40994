package backup

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/seal"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/trust"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/backup"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

const phrase = "a phrase of a backup"

// running is a gateway's folder, in use.
type running struct {
	Source
	key    identity.Key
	series *telemetry.Store
}

// silent takes events that nobody asks for.
type silent struct{}

// Add implements telemetry.Events.
func (silent) Add(string, model.Severity, string, string, map[string]string) {}

func newRunning(t *testing.T) *running {
	t.Helper()
	dir := t.TempDir()
	storetest.PutConfig(t, filepath.Join(dir, "config.db"))
	db, _, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	held, _, err := telemetry.OpenJournal(t.Context(), filepath.Join(dir, journal))
	if err != nil {
		t.Fatal(err)
	}
	series, err := telemetry.Open(t.Context(), telemetry.Config{Journal: held, Dir: filepath.Join(dir, weeks), Now: time.Now,
		Sure: func() bool { return true }, Events: silent{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(); series.Close(); held.Close() })
	key := identity.New()
	_, err = trust.Open(dir, "north-ridge", time.Now())
	_, _, sealErr := seal.Load(dir)
	err = errors.Join(err, sealErr, db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, admitted_by, joined) VALUES (?, 'gw', 'gateway', ?, 'w', '10.42.0.1', 'self', 1)`,
			key.ID(), key.Public().Base64())
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	b := bundle.Bundle{Version: bundle.Version, Network: "north-ridge", Role: model.RoleGateway, Country: "DE",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64(), Seed: base64.StdEncoding.EncodeToString(key.Seed())},
		Mesh:    bundle.Mesh{SSID: "ETHRX0001-8A", PSK: "a secret of the mesh", Routing: "BATMAN_IV"}}
	text, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return &running{Source{
		Dir: dir, Config: db, Telemetry: series.Backup,
		Network: "north-ridge", NetworkKey: key.Public().Base64(), Node: key.ID(), Epoch: func() uint64 { return 41_000 }, Now: time.Now,
		Mesh: func(context.Context) (model.MeshBackup, error) {
			return model.MeshBackup{Bundle: text, Profile: []byte("documents"), Boot: 57}, nil
		},
	}, key, series}
}

func (r *running) file(t *testing.T, telemetry bool) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := r.Write(t.Context(), &b, phrase, telemetry); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func plenty() (int64, error) { return 1 << 40, nil }

func into(dir string) Target {
	return Target{Dir: filepath.Join(dir, paths.RestoreDir), Free: plenty, Epoch: 45_000}
}

// Neither in rows nor in what SQLite leaves of them.
func TestABackupHasNoLogins(t *testing.T) {
	r := newRunning(t)
	gone := []string{"a-hash-of-a-refresh-token", "an-answer-to-somebody", "a-sealed-signing-key", "a-former-signing-key", "another-of-many-tokens"}
	err := r.Config.Write(t.Context(), func(tx *sql.Tx) error {
		for _, q := range []string{
			`INSERT INTO users (username, role, password, created) VALUES ('eve', 'admin', 'the-hash-of-eve', 1)`,
			`INSERT INTO refresh_tokens (hash, family, username, expires) VALUES (CAST('a-hash-of-a-refresh-token' AS BLOB), x'02', 'eve', 9)`,
			`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 500) INSERT INTO refresh_tokens (hash, family, username, expires) SELECT CAST('another-of-many-tokens' || i AS BLOB), x'02', 'eve', 9 FROM n`,
			`INSERT INTO idempotency (id, caller, request, answer, created) VALUES (x'07', 'user:eve', x'08', CAST('an-answer-to-somebody' AS BLOB), 1)`,
			`INSERT INTO secrets VALUES ('login signing key', CAST('a-sealed-signing-key' AS BLOB)), ('another', CAST('a-secret-that-stays' AS BLOB))`,
			`INSERT INTO settings VALUES ('login signing key', CAST('a-former-signing-key' AS BLOB))`,
		} {
			if _, err := tx.Exec(q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := Stage(t.Context(), bytes.NewReader(r.file(t, false)), phrase, into(dir)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, paths.RestoreDir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"the-hash-of-eve", "a-secret-that-stays"} {
		if !bytes.Contains(b, []byte(s)) {
			t.Errorf("%q is not in it", s)
		}
	}
	for _, s := range gone {
		if bytes.Contains(b, []byte(s)) {
			t.Errorf("%q is in it", s)
		}
	}
	var here int
	if err := r.Config.Read().QueryRow(`SELECT count(*) FROM refresh_tokens`).Scan(&here); err != nil || here != 501 {
		t.Errorf("the gateway itself has %d of its logins, %v", here, err)
	}
	left, err := filepath.Glob(filepath.Join(r.Dir, snapshot+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// While somebody writes, a backup is of one instant.
func TestABackupOfADatabaseInUse(t *testing.T) {
	r := newRunning(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil && ctx.Err() == nil; i++ { // both or neither
			err = r.Config.Write(context.Background(), func(tx *sql.Tx) error {
				return errors.Join(store.PutSetting(ctx, tx, "a", fmt.Append(nil, i)), store.PutSetting(ctx, tx, "b", fmt.Append(nil, i)))
			})
		}
		done <- ignoreCanceled(err)
	}()
	for range 5 {
		dir := t.TempDir()
		s, err := Stage(t.Context(), bytes.NewReader(r.file(t, true)), phrase, into(dir))
		if err != nil {
			t.Fatal(err)
		}
		if s.Epoch != 45_001 || s.Mesh.Boot != 57 || string(s.Mesh.Profile) != "documents" || s.Mesh.ID != s.Manifest.ID {
			t.Errorf("got %+v", s)
		}
		db, repair, err := store.OpenConfig(t.Context(), filepath.Join(dir, paths.RestoreDir, "config.db"))
		if err != nil || repair.Restored != From+s.Manifest.ID {
			t.Fatalf("got %+v, %v", repair, err)
		}
		a, errA := db.Setting(t.Context(), "a", nil)
		b, errB := db.Setting(t.Context(), "b", nil)
		if err := errors.Join(errA, errB, db.Close()); err != nil || string(a) != string(b) {
			t.Errorf("it has %q and %q, %v", a, b, err)
		}
		if _, err := os.Stat(filepath.Join(dir, paths.RestoreDir, "telemetry.db")); err != nil {
			t.Errorf("telemetry: %v", err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(r.Dir, "backup*")); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

type parts map[string][]byte

// taken is what is in a backup.
func (r *running) taken(t *testing.T) (backup.Manifest, parts) {
	t.Helper()
	in, err := backup.Open(bytes.NewReader(r.file(t, false)), phrase)
	if err != nil {
		t.Fatal(err)
	}
	p := parts{}
	got := map[string]*bytes.Buffer{}
	err = in.Parts(func(name string) (io.Writer, int64, error) {
		got[name] = &bytes.Buffer{}
		return got[name], 1 << 30, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range got {
		p[name] = b.Bytes()
	}
	return in.Manifest, p
}

// remade is a backup with parts changed; nil takes one out.
func remade(t *testing.T, m backup.Manifest, p parts, change func(*backup.Manifest, parts)) []byte {
	t.Helper()
	p = maps.Clone(p)
	change(&m, p)
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, phrase, m)
	for name, b := range p {
		if err == nil && b != nil {
			err = w.AddBytes(name, b)
		}
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	r, other := newRunning(t), newRunning(t)
	otherDB := filepath.Join(t.TempDir(), "config.db")
	if err := other.Config.Snapshot(t.Context(), otherDB); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(otherDB)
	if err != nil {
		t.Fatal(err)
	}
	m, p := r.taken(t)
	for _, tc := range []struct {
		name   string
		change func(*backup.Manifest, parts)
		want   error
	}{
		{"as it is", func(*backup.Manifest, parts) {}, nil},
		{"no config.db", func(_ *backup.Manifest, p parts) { p[backup.Config] = nil }, ErrUnfit},
		{"no CA", func(_ *backup.Manifest, p parts) { p[backup.CAKey] = nil }, ErrUnfit},
		{"no bundle", func(_ *backup.Manifest, p parts) { p[backup.Bundle] = nil }, ErrUnfit},
		{"no key of secrets", func(_ *backup.Manifest, p parts) { p[backup.SealKey] = nil }, ErrUnfit},
		{"a damaged key of secrets", func(_ *backup.Manifest, p parts) { p[backup.SealKey] = []byte("halo-seal-1 x y\n") }, ErrUnfit},
		{"another's CA key", func(_ *backup.Manifest, p parts) {
			b, err := os.ReadFile(filepath.Join(other.Dir, trust.KeyFile))
			if err != nil {
				t.Fatal(err)
			}
			p[backup.CAKey] = b
		}, ErrUnfit},
		{"another's database", func(_ *backup.Manifest, p parts) { p[backup.Config] = foreign }, ErrUnfit},
		{"no database", func(_ *backup.Manifest, p parts) { p[backup.Config] = []byte("SQLite") }, ErrUnfit},
		{"half a database", func(_ *backup.Manifest, p parts) { p[backup.Config] = p[backup.Config][:20_000] }, ErrUnfit},
		{"another's manifest", func(m *backup.Manifest, _ parts) { m.NetworkKey, m.Node = other.NetworkKey, other.Node }, ErrUnfit},
		{"a manifest of nobody", func(m *backup.Manifest, _ parts) { m.NetworkKey = "" }, ErrUnfit},
		{"another epoch", func(_ *backup.Manifest, p parts) { p[backup.Epoch] = []byte("7") }, ErrUnfit},
		{"the last epoch", func(m *backup.Manifest, p parts) {
			m.Epoch = 1<<53 - 1
			p[backup.Epoch] = fmt.Append(nil, m.Epoch)
		}, ErrUnfit},
		{"another version of its tables", func(m *backup.Manifest, _ parts) { m.Schema-- }, ErrUnfit},
		{"a newer version of its tables", func(m *backup.Manifest, _ parts) { m.Schema += 100 }, backup.ErrNewer},
		{"a part that nobody knows", func(_ *backup.Manifest, p parts) { p["gateway/more"] = []byte("x") }, ErrUnfit},
		{"a way out of the folder", func(_ *backup.Manifest, p parts) { p[backup.Telemetry+"telemetry/../../x"] = []byte("x") }, ErrUnfit},
		{"an absolute path", func(_ *backup.Manifest, p parts) { p["/etc/passwd"] = []byte("x") }, ErrUnfit},
		{"a huge small part", func(_ *backup.Manifest, p parts) { p[backup.Profile] = make([]byte, maxSmall+1) }, backup.ErrTooLarge},
	} {
		dir := t.TempDir()
		_, err := Stage(t.Context(), bytes.NewReader(remade(t, m, p, tc.change)), phrase, into(dir))
		if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "a secret of the mesh") {
			t.Errorf("%s: the error has a secret in it: %v", tc.name, err)
		}
		_, statErr := os.Stat(filepath.Join(dir, paths.RestoreDir))
		if left := !errors.Is(statErr, fs.ErrNotExist); left != (tc.want == nil) {
			t.Errorf("%s: a folder is there: %v", tc.name, left)
		}
	}
	full := into(t.TempDir())
	full.Free = func() (int64, error) { return spare, nil }
	if _, err := Stage(t.Context(), bytes.NewReader(r.file(t, false)), phrase, full); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a full card: got %v", err)
	}
}

// The steps of Take, and a power cut after each.
func TestARestoreTakesItsPlaceWhereverPowerFails(t *testing.T) {
	r := newRunning(t)
	prepared := filepath.Join(t.TempDir(), "gateway")
	s, err := Stage(t.Context(), bytes.NewReader(r.file(t, true)), phrase, into(prepared))
	if err != nil {
		t.Fatal(err)
	}
	stranger := identity.New().ID()
	for _, before := range []string{r.Node, stranger} { // whose card it was
		for cut := range 5 {
			root := t.TempDir()
			dir := filepath.Join(root, "gateway")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, Marker), []byte(before+"\n"), 0o600),
				os.WriteFile(filepath.Join(dir, "config.db"), []byte("of before"), 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(dir, paths.RestoreDir), os.DirFS(filepath.Join(prepared, paths.RestoreDir))); err != nil {
				t.Fatal(err)
			}
			record := model.Restored{ID: s.Manifest.ID, Node: r.Node}
			// halo-mesh has not come to it: nothing happens, and nothing is thrown away.
			if got, err := Take(dir, before, model.Restored{}, true); got != "" || err != nil {
				t.Fatalf("while it waits: %q, %v", got, err)
			}
			inside, beside := filepath.Join(dir, paths.RestoreDir), dir+".restored"
			steps := []func() error{
				func() error { return os.Rename(inside, beside) },
				func() error { return os.RemoveAll(filepath.Join(dir, "config.db")) },
				func() error { return os.RemoveAll(dir) },
				func() error { return os.Rename(beside, dir) },
			}
			for _, step := range steps[:cut] {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // and the start after it
				if got, err := Take(dir, r.Node, record, false); got != "" && cut != 4 || err != nil {
					t.Fatalf("cut %d: %q, %v", cut, got, err)
				}
			}
			db, repair, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
			if err != nil || repair.Restored != From+s.Manifest.ID {
				t.Fatalf("cut %d: %+v, %v", cut, repair, err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			for _, gone := range []string{beside, filepath.Join(dir, paths.RestoreDir), filepath.Join(dir, complete)} {
				if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("cut %d: %s is there: %v", cut, gone, err)
				}
			}
			b, err := os.ReadFile(dir + "-" + stranger + "/config.db")
			if kept := err == nil && string(b) == "of before"; kept != (before == stranger && cut < 2) {
				t.Errorf("cut %d: the folder of %s is kept: %v", cut, before, kept)
			}
		}
	}
}

func TestARestoreThatWasNotDecidedIsGone(t *testing.T) {
	r := newRunning(t)
	file := r.file(t, false)
	for name, record := range map[string]model.Restored{
		"halo-mesh knows of none":      {},
		"halo-mesh knows of another":   {ID: "another", Node: r.Node},
		"halo-mesh is another gateway": {ID: "", Node: "n-x"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.db"), []byte("of before"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Stage(t.Context(), bytes.NewReader(file), phrase, into(dir))
		if err != nil {
			t.Fatal(err)
		}
		if name == "halo-mesh is another gateway" {
			record.ID = s.Manifest.ID
		}
		got, err := Take(dir, r.Node, record, false)
		if err != nil || got != s.Manifest.ID {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "config.db"))
		_, statErr := os.Stat(filepath.Join(dir, paths.RestoreDir))
		if err != nil || string(b) != "of before" || !errors.Is(statErr, fs.ErrNotExist) {
			t.Errorf("%s: config.db is %q, %v, the restore: %v", name, b, err, statErr)
		}
	}
	// Half of one, as a power cut leaves it, is no news.
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, paths.RestoreDir), 0o700), os.WriteFile(filepath.Join(dir, paths.RestoreDir, "config.db"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if got, err := Take(dir, r.Node, model.Restored{}, false); got != "" || err != nil {
		t.Errorf("half a restore: %q, %v", got, err)
	}
}
