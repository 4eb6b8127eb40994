package store

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// An update that does not prove itself is undone: the release before it then finds
// config.db as the later one has left it. Therefore a migration only adds:
//   - tables, and columns that may be left out: nullable, or with a default;
//   - no constraint on what was there: none that is new, none that is gone, and no unique
//     index without a new column;
//   - triggers that do not fail whatever the former release writes.
// What has to move does so in the code of the release that needs it, and again if it
// finds that a former one has written meanwhile (seal.Secrets.Adopt).
//
// The tests below hold each migration to that, and open what it makes as the release
// before it does.

// writes are what releases write into each table, with the columns that it had first.
var writes = map[string]string{
	"settings":       `INSERT INTO settings (name, value) VALUES ('k', x'00')`,
	"users":          `INSERT INTO users (username, role, password, created) VALUES ('eve', 'admin', '$argon2id$', 1)`,
	"refresh_tokens": `INSERT INTO refresh_tokens (hash, family, username, expires) VALUES (x'01', x'02', 'eve', 9)`,
	"api_tokens":     `INSERT INTO api_tokens (id, hash, name, scopes, created, created_by) VALUES ('t', x'03', 'n', 'nodes:read', 1, 'user:eve')`,
	"nodes": `INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, admitted_by, joined)
		VALUES ('n-a', 'a', 'node', 'k', 'w', '10.42.1.2', 'token:x', 1), ('n-b', 'b', 'node', 'l', 'x', '10.42.1.3', 'token:x', 1)`,
	"interfaces":    `INSERT INTO interfaces (node, name, body, present, first_seen, last_seen) VALUES ('n-a', 'eth0', '{}', 1, 1, 1)`,
	"registrations": `INSERT INTO registrations (id, request, remote, state, requested, last_try) VALUES ('n-c', '{}', '::1', 'pending', 1, 1)`,
	"join_tokens":   `INSERT INTO join_tokens (id, uses, expires, created) VALUES ('00', 1, 9, 1)`,
	"events":        `INSERT INTO events (received, source, boot, seq, kind, severity, node, body) VALUES (1, 'n-a', 1, 1, 'k', 0, '', '{}')`,
	"audit": `INSERT INTO audit (time, actor, action, target, remote, status) VALUES (1, 'user:eve', 'login', '', '::1', 200),
		(2, 'user:eve', 'login', '', '::1', 0)`,
	"trusted_macs": `INSERT INTO trusted_macs (mac, note, created, created_by) VALUES ('02:00:00:00:00:01', '', 1, 'user:eve')`,
	"copy_marks":   `UPDATE copy_marks SET change = x'04'`, // it has its one row
	"operator_certificates": `INSERT INTO operator_certificates (epoch, username, role, key, label, issued, expires)
		VALUES (1, 'eve', 'admin', x'05', '', 1, 9)`,
	"audit_anchor": `UPDATE audit_anchor SET id = id`,
	"preferences":  `INSERT INTO preferences (name, value) VALUES ('telemetry.budget_bytes', '1')`,
	"neurons":      `INSERT INTO neurons (name, description, needs, created, created_by) VALUES ('n01', '', '', 1, 'user:eve')`,
	"neuron_parts": `INSERT INTO neuron_parts (neuron, component, kind, target) VALUES ('n01', 'send', 'device', 'n-a')`,
	"idempotency":  `INSERT INTO idempotency (id, caller, request, answer, created) VALUES (x'07', 'user:eve', x'08', NULL, 1)`,
	"jobs": `INSERT INTO jobs (epoch, boot, kind, node, by, key, request, state, created, expires)
		VALUES (1, 1, 'reboot', 'n-a', 'user:eve', NULL, '{}', 'waiting', 1, 9)`,
	"firewall": `UPDATE firewall SET draft = '{}', draft_at = 1, draft_by = 'user:eve'`, // it has its one row
	"visitors": `INSERT INTO visitors (id, wireguard_key, overlay_v4, username, label, certificate, registered, renewed)
		VALUES ('v-a', 'y', '10.42.2.2', 'eve', 'laptop', 1, 1, 1)`,
	"alerts":                 `INSERT INTO alerts (kind, node, subject, severity, message, fields, opened) VALUES ('node.offline', 'n-a', '', 1, 'm', '{}', 1)`,
	"event_acks":             `INSERT INTO event_acks (event, time, actor, note) SELECT min(id), 1, 'user:eve', '' FROM events`,
	"replacement_dismissals": `INSERT INTO replacement_dismissals (node, old, time, actor) VALUES ('n-a', 'n-b', 1, 'user:eve')`,
	"interface_hardware":     `INSERT INTO interface_hardware (node, name, mac, first_seen) VALUES ('n-a', 'eth0', '02:00:00:00:00:01', 1)`,
	"endpoints":              `INSERT INTO endpoints (id, mac, name, note, node, body, first_seen, last_seen) VALUES ('e-a', '02:00:00:00:00:02', '', '', 'n-a', '{}', 1, 1)`,
	"endpoint_places":        `INSERT INTO endpoint_places (endpoint, since, node) VALUES ('e-a', 1, 'n-a')`,
	"secrets":                `INSERT INTO secrets (name, sealed) VALUES ('k', x'06')`,
	"inventories":            `INSERT INTO inventories (node, digest, body, time) VALUES ('n-a', 'd', '{}', 1)`,
	"sensors":                `INSERT INTO sensors (node, key, name, place, time) VALUES ('n-a', 'i2c-1/76', 'attic', '', 1)`,
	"sensor_assignments":     `INSERT INTO sensor_assignments (node, key, body) VALUES ('n-a', 'i2c-1-40', '{}')`,
	"sensor_templates":       `INSERT INTO sensor_templates (name, digest, text, actor, time) VALUES ('aht20', 'd', 'name = "aht20"', 'user:eve', 1)`,
}

// unmade takes back what writes has made, as releases do.
var unmade = []string{
	`UPDATE users SET role = 'viewer', password = 'x', disabled = 1, generation = 2, last_login = 3`, `UPDATE nodes SET revoked = 1, name = 'z' WHERE id = 'n-a'`,
	`UPDATE audit SET status = 200 WHERE status = 0`, `DELETE FROM audit WHERE id = 1`,
	`DELETE FROM users`, `DELETE FROM api_tokens`, `DELETE FROM nodes WHERE id = 'n-b'`, `UPDATE registrations SET state = 'rejected'`, `DELETE FROM registrations`,
	`UPDATE join_tokens SET revoked = 1`, `DELETE FROM join_tokens`, `DELETE FROM settings WHERE name = 'k'`, `DELETE FROM events`,
}

// upTo returns the migrations of config.db as the release had them whose last was n.
func upTo(t *testing.T, n int) (files fs.FS, last int) {
	t.Helper()
	list, err := fs.Glob(migrations, "config/*.sql")
	if err != nil || len(list) == 0 {
		t.Fatalf("got %v, %v", list, err)
	}
	m := fstest.MapFS{}
	for _, name := range list {
		var number int
		if _, err := fmt.Sscanf(path.Base(name), "%d_", &number); err != nil {
			t.Fatal(err)
		}
		last = max(last, number)
		if number > n {
			continue
		}
		b, err := fs.ReadFile(migrations, name)
		if err != nil {
			t.Fatal(err)
		}
		m[path.Base(name)] = &fstest.MapFile{Data: b}
	}
	return m, last
}

// oldest is the first release that an update may go back to.
const oldest = 1

func TestAReleaseReadsAndWritesWhatTheNextOneHasMade(t *testing.T) {
	_, last := upTo(t, 0)
	for n := oldest + 1; n <= last; n++ {
		t.Run(fmt.Sprintf("%d to %d", n, n-1), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.db")
			open := func(n int) *DB {
				t.Helper()
				files, _ := upTo(t, n)
				d, repair, err := Open(t.Context(), file, Kind{Migrations: files, Scrub: true})
				if err != nil || repair != (Repair{}) {
					t.Fatalf("release %d: %v, %+v", n, err, repair)
				}
				return d
			}
			d := open(n - 1)
			before := describe(t, d)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(n)
			onlyAdds(t, before, describe(t, d))
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			// Goes back, writes, and forward again.
			d = open(n - 1)
			defer func() { d.Close() }()
			for _, name := range tablesInOrder(before) {
				w, ok := writes[name]
				if !ok {
					t.Errorf("nothing is known of what a release writes into %s", name)
					continue
				}
				if _, err := d.write.Exec(w); err != nil {
					t.Errorf("release %d cannot write into %s of %d: %v", n-1, name, n, err)
				}
				if _, err := d.read.Exec(`SELECT ` + strings.Join(before[name].names(), ", ") + ` FROM ` + name); err != nil {
					t.Errorf("release %d cannot read %s of %d: %v", n-1, name, n, err)
				}
			}
			for _, w := range unmade {
				if _, err := d.write.Exec(w); err != nil {
					t.Errorf("release %d with the tables of %d: %s: %v", n-1, n, w, err)
				}
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(n)
		})
	}
}

// table is what a release may rely on.
type table struct {
	sql     string
	columns []column
	unique  map[string][]string // columns of each unique index
}

type column struct {
	name, kind string
	required   bool // has to be given
}

func (b table) names() (list []string) {
	for _, c := range b.columns {
		list = append(list, c.name)
	}
	return list
}

// tablesInOrder has those first that others refer to.
func tablesInOrder(m map[string]table) []string {
	rank := func(name string) int {
		return slices.Index([]string{"users", "nodes", "neurons", "events", "endpoints"}, name)
	}
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a, b)) })
}

func describe(t *testing.T, d *DB) map[string]table {
	t.Helper()
	query := func(q string, f func(scan func(...any) error) error) {
		t.Helper()
		rows, err := d.read.Query(q)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			if err := f(rows.Scan); err != nil {
				t.Fatal(err)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	tables := map[string]table{}
	query(`SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'goose_%'`, func(scan func(...any) error) error {
		var name, sql string
		err := scan(&name, &sql)
		tables[name] = table{sql: sql, unique: map[string][]string{}}
		return err
	})
	for name, b := range tables {
		query(`SELECT name, type, "notnull" AND dflt_value IS NULL FROM pragma_table_xinfo('`+name+`')`, func(scan func(...any) error) error {
			var c column
			err := scan(&c.name, &c.kind, &c.required)
			b.columns = append(b.columns, c)
			return err
		})
		query(`SELECT l.name, coalesce(i.name, '') FROM pragma_index_list('`+name+`') l, pragma_index_info(l.name) i WHERE l."unique"`, func(scan func(...any) error) error {
			var index, of string
			err := scan(&index, &of)
			b.unique[index] = append(b.unique[index], of)
			return err
		})
		tables[name] = b
	}
	return tables
}

// onlyAdds holds a migration to the rules above.
func onlyAdds(t *testing.T, before, after map[string]table) {
	t.Helper()
	for name, was := range before {
		is, ok := after[name]
		if !ok {
			t.Errorf("table %s is gone", name)
			continue
		}
		// With its constraints: what is added to a table stands behind them.
		if head := was.sql[:strings.LastIndex(was.sql, ")")]; !strings.HasPrefix(is.sql, strings.TrimRight(head, " \n")) {
			t.Errorf("table %s was\n%s\nand is\n%s", name, was.sql, is.sql)
		}
		if len(is.columns) < len(was.columns) || !slices.Equal(is.columns[:len(was.columns)], was.columns) {
			t.Errorf("table %s had columns %v, and has %v", name, was.columns, is.columns)
			continue
		}
		for _, c := range is.columns[len(was.columns):] {
			if c.required {
				t.Errorf("column %s.%s is new, and a release that does not know it cannot leave it out", name, c.name)
			}
		}
		for index, of := range is.unique {
			if _, ok := was.unique[index]; !ok && !slices.ContainsFunc(of, func(c string) bool { return !slices.Contains(was.names(), c) }) {
				t.Errorf("unique index %s of %s on %v is new, and on nothing else that is", index, name, of)
			}
		}
	}
}

// The rules find what they are there to find.
func TestMigrationsThatDoMoreAreFound(t *testing.T) {
	for name, migration := range map[string]string{
		"dropped":        `DROP TABLE trusted_macs;`,
		"renamed":        `ALTER TABLE users RENAME COLUMN role TO part;`,
		"column dropped": `ALTER TABLE users DROP COLUMN last_login;`,
		"unique":         `CREATE UNIQUE INDEX one_each ON api_tokens (created_by);`,
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := openConfig(t, filepath.Join(t.TempDir(), "config.db"))
			before := describe(t, d)
			if _, err := d.write.Exec(migration); err != nil {
				t.Fatal(err)
			}
			found := &testing.T{}
			onlyAdds(found, before, describe(t, d))
			if !found.Failed() {
				t.Error("it was not found")
			}
		})
	}
}
