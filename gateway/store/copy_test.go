package store

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func exec(t *testing.T, d *DB, statement string) {
	t.Helper()
	if err := d.Write(t.Context(), func(tx *sql.Tx) error { _, err := tx.ExecContext(t.Context(), statement); return err }); err != nil {
		t.Fatal(err)
	}
}

func lag(t *testing.T, d *DB) Lag {
	t.Helper()
	l, err := d.Lag(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func copyDB(t *testing.T, d *DB) {
	t.Helper()
	if err := d.Copy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

const (
	addUser = `INSERT INTO users (username, role, password, created) VALUES ('eve', 'admin', 'the-hash-of-eve', 1)`
	addNode = `INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, admitted_by, joined) VALUES ('n-a', 'a', 'node', 'k', 'w', '10.42.0.9', 'self', 1)`
	addMAC  = `INSERT INTO trusted_macs (mac, note, created, created_by) VALUES ('02:00:00:00:00:01', '', 1, '')`
)

func TestWhatCopiesLackIsKnown(t *testing.T) {
	t.Setenv("TMPDIR", "/dev/shm") // a lot is synced
	for _, tc := range []struct {
		name          string
		before, after string
		want          Lag
	}{
		{"nothing", "", `UPDATE settings SET value = value`, Lag{}},
		{"a heartbeat", addNode, `UPDATE nodes SET last_seen = 5, status = '{}', boot = 2`, Lag{}},
		{"a login", addUser, `UPDATE users SET last_login = 5`, Lag{}},
		{"the gateway's row at a start", addNode, `UPDATE nodes SET wireguard_key = wireguard_key, boot = 4`, Lag{}},
		{"a user comes", "", addUser, Lag{Change: true}},
		{"a user's password", addUser, `UPDATE users SET password = 'new'`, Lag{Withdrawal: true}},
		{"a user goes", addUser, `DELETE FROM users`, Lag{Withdrawal: true}},
		{"an API token comes", "", `INSERT INTO api_tokens (id, hash, name, scopes, created, created_by) VALUES ('a', x'00', '', '', 1, '')`, Lag{Change: true}},
		{"an API token goes", `INSERT INTO api_tokens (id, hash, name, scopes, created, created_by) VALUES ('a', x'00', '', '', 1, '')`, `DELETE FROM api_tokens`, Lag{Withdrawal: true}},
		{"a node comes", "", addNode, Lag{Change: true}},
		{"a node is renamed", addNode, `UPDATE nodes SET name = 'b'`, Lag{Change: true}},
		{"a node is revoked", addNode, `UPDATE nodes SET revoked = 1, name = id`, Lag{Change: true, Withdrawal: true}},
		{"a registration is rejected", `INSERT INTO registrations (id, request, remote, state, requested, last_try) VALUES ('n-b', '{}', '', 'pending', 1, 1)`, `UPDATE registrations SET state = 'rejected'`, Lag{Withdrawal: true}},
		{"a join token comes", "", `INSERT INTO join_tokens (id, uses, expires, created) VALUES ('00', 1, 1, 1)`, Lag{Change: true}},
		{"a join token is used", `INSERT INTO join_tokens (id, uses, expires, created) VALUES ('00', 1, 1, 1)`, `UPDATE join_tokens SET used = 1`, Lag{}},
		{"a join token is revoked", `INSERT INTO join_tokens (id, uses, expires, created) VALUES ('00', 1, 1, 1)`, `UPDATE join_tokens SET revoked = 1`, Lag{Withdrawal: true}},
		{"one that was never seen is revoked", "", `INSERT INTO join_tokens (id, uses, expires, created, revoked) VALUES ('00', 1, 1, 1, 1)`, Lag{Withdrawal: true}},
		{"a MAC comes", "", addMAC, Lag{Change: true}},
		{"a MAC is bound", addMAC, `UPDATE trusted_macs SET node = 'n-a'`, Lag{Change: true}},
		{"a MAC goes", addMAC, `DELETE FROM trusted_macs`, Lag{Withdrawal: true}},
		{"the claim code is used", `INSERT INTO settings VALUES ('claim code', 'x')`, `DELETE FROM settings WHERE name = 'claim code'`, Lag{Withdrawal: true}},
		{"the codes of nodes are renewed", `INSERT INTO settings VALUES ('generation of node codes', x'00000000')`, `UPDATE settings SET value = x'00000001' WHERE name = 'generation of node codes'`, Lag{Withdrawal: true}},
		{"another fact changes", `INSERT INTO settings VALUES ('k', x'00')`, `UPDATE settings SET value = x'01' WHERE name = 'k'`, Lag{}},
		{"a preference comes", "", `INSERT INTO preferences VALUES ('a', '1')`, Lag{Change: true}},
		{"a preference changes", `INSERT INTO preferences VALUES ('a', '1')`, `UPDATE preferences SET value = '2'`, Lag{Change: true}},
		{"a preference stays as it was", `INSERT INTO preferences VALUES ('a', '1')`, `UPDATE preferences SET value = '1'`, Lag{}},
		{"a preference goes", `INSERT INTO preferences VALUES ('a', '1')`, `DELETE FROM preferences`, Lag{Change: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			d, _ := openConfig(t, path)
			if l := lag(t, d); l != (Lag{Change: true}) {
				t.Errorf("without a copy: %+v", l)
			}
			if tc.before != "" {
				exec(t, d, tc.before)
			}
			copyDB(t, d)
			if l := lag(t, d); l != (Lag{}) {
				t.Errorf("after a copy: %+v", l)
			}
			exec(t, d, tc.after)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d, _ = openConfig(t, path) // what was asked of the process before is forgotten
			if l := lag(t, d); l != tc.want {
				t.Errorf("after a restart: %+v, want %+v", l, tc.want)
			}
			copyDB(t, d)
			if l := lag(t, d); l != (Lag{}) {
				t.Errorf("after the next copy: %+v", l)
			}
		})
	}
}

func TestNoCopyHasWhatWasRevoked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	d, _ := openConfig(t, path)
	exec(t, d, addUser)
	copyDB(t, d)
	copyDB(t, d)
	exec(t, d, `DELETE FROM users`)
	copyDB(t, d)
	for _, s := range copySuffixes {
		b, err := os.ReadFile(path + s)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("the-hash-of-eve")) {
			t.Errorf("%s still has the user", s)
		}
	}
}

// The power is cut between the two copies that a withdrawal costs, and at each
// rename: there is a whole copy at all times, and the next start knows.
func TestACutBetweenTheCopiesIsMadeUpFor(t *testing.T) {
	rename := func(from, to string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Rename(path+from, path+to); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, cut := range map[string]func(t *testing.T, path string){
		"before the first":   func(*testing.T, string) {},
		"between renames":    rename(".copy-1", ".copy-2"),
		"after the first":    nil,
		"an unfinished copy": func(t *testing.T, path string) { _ = os.WriteFile(path+".copy-new", []byte("SQLite"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			d, _ := openConfig(t, path)
			exec(t, d, addUser)
			copyDB(t, d)
			copyDB(t, d)
			exec(t, d, `DELETE FROM users`)
			if cut == nil {
				if err := d.copyOnce(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				cut(t, path)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d, _ = openConfig(t, path)
			if !lag(t, d).Withdrawal {
				t.Error("the next start does not know that a copy still has what was taken away")
			}
			copyDB(t, d)
			if l := lag(t, d); l != (Lag{}) {
				t.Errorf("after it: %+v", l)
			}
		})
	}
}

// A newest copy that has rotted must not take the place of the second, which is
// the only one that is whole.
func TestARottenCopyDoesNotReplaceAGoodOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	d, _ := openConfig(t, path)
	put(t, d, "first")
	copyDB(t, d)
	put(t, d, "second")
	copyDB(t, d)
	exec(t, d, addUser) // "change" alone: one copy is made
	if err := os.WriteFile(path+copySuffixes[0], bytes.Repeat([]byte("x"), 20_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.copyOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	for suffix, want := range map[string]string{copySuffixes[0]: "second", copySuffixes[1]: "first"} {
		var got string
		err := inspect(path+suffix, func(db *sql.DB) error {
			return errors.Join(check(t.Context(), db), db.QueryRow(`SELECT value FROM settings WHERE name = 'k'`).Scan(&got))
		})
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", suffix, got, err, want)
		}
	}
}
