package ctl_test

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"halo.internal/ctl"
	"halo.internal/ctl/profile"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
	"halo.internal/model/paths"
)

// marked is the head that is remembered.
func (u *user) marked(t *testing.T) int64 {
	t.Helper()
	m, err := profile.LoadAuditMark(strings.TrimSuffix(u.dir.Path("north-ridge"), ".json") + ".audit")
	if err != nil {
		t.Fatal(err)
	}
	return m.ID
}

// TestAHeadIsRemembered, whatever the gateway says of itself.
func TestAHeadIsRemembered(t *testing.T) {
	shows := func(g *standIn, verified, records auditChain) {
		g.set("GET /v1/audit/verify", verified.verification())
		g.set("GET /v1/audit/records", records.records)
	}
	another := func(r *http.Request) any { // the same but for the first record
		first := auditlog.Record{ID: 1, Actor: "user:eve"}
		second := auditlog.Record{Before: first.Hash(), ID: 2}
		return apitype.AuditRecordList{Items: []apitype.AuditRecord{{ID: 2, Record: second.Encode()}}}
	}
	for _, tc := range []struct {
		name    string
		change  func(g *standIn)
		status  int
		state   string
		mention string // in the error
		marked  int64  // then; 3 before
	}{
		{"nothing since", func(*standIn) {}, ctl.ExitOK, "there", "", 3},
		{"it goes on", func(g *standIn) { shows(g, 8, 8) }, ctl.ExitOK, "there", "", 8},
		{"it goes on meanwhile", func(g *standIn) { shows(g, 6, 9) }, ctl.ExitOK, "there", "", 6},
		{"its end is gone", func(g *standIn) { shows(g, 2, 2) }, ctl.ExitError, "lost", "a log that ends at 2", 3},
		{"all is gone", func(g *standIn) { shows(g, 0, 0) }, ctl.ExitError, "lost", "a log that ends at 0", 3},
		{"an end that it does not show", func(g *standIn) { shows(g, 8, 6) }, ctl.ExitError, "lost", "expected a record, came none", 3},
		{"written anew", func(g *standIn) {
			g.set("GET /v1/audit/verify", auditChain(8).verification())
			g.set("GET /v1/audit/records", func(r *http.Request) any {
				first := auditlog.Record{ID: 3, Actor: "user:eve"}
				fourth := auditlog.Record{Before: first.Hash(), ID: 4}
				return apitype.AuditRecordList{Items: []apitype.AuditRecord{{ID: 4, Record: fourth.Encode()}}}
			})
		}, ctl.ExitError, "lost", "written anew", 3},
		{"records of another place", func(g *standIn) {
			g.set("GET /v1/audit/verify", auditChain(8).verification())
			g.set("GET /v1/audit/records", another)
		}, ctl.ExitError, "lost", "expected record 4, came record 2", 3},
		{"changed", func(g *standIn) {
			v := auditChain(8).verification()
			v.Intact, v.Fault = false, &apitype.AuditFault{ID: 2, Expected: "the hash 12", Came: "34\x1b[31m"}
			g.set("GET /v1/audit/verify", v)
		}, ctl.ExitError, "unknown", "record 2 does not fit: expected the hash 12, came 34\ufffd[31m", 3},
		{"changed, it does not say where", func(g *standIn) {
			v := auditChain(8).verification()
			v.Intact = false
			g.set("GET /v1/audit/verify", v)
		}, ctl.ExitError, "unknown", "not where", 3},
		{"no hash", func(g *standIn) {
			v := auditChain(8).verification()
			v.Head.Hash = "rubbish"
			g.set("GET /v1/audit/verify", v)
		}, ctl.ExitError, "", "expected a hash", 3},
		{"an older gateway", func(g *standIn) {
			g.set("GET /v1/audit/verify", apitype.Problem{Title: "Not Found", Status: http.StatusNotFound})
		}, ctl.ExitNotFound, "", "", 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g, url := newStandIn(t)
			u := newUser(t)
			u.login(t, url)
			u.must(t, "audit", "verify")
			if at := u.marked(t); at != 3 {
				t.Fatalf("remembered is %d", at)
			}
			u.login(t, url) // another session forgets nothing
			tc.change(g)
			code, out, errs := u.run(t.Context(), "audit", "verify", "--json")
			var r struct{ Remembered struct{ State string } }
			if tc.state != "" {
				if err := json.Unmarshal([]byte(out), &r); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
			if code != tc.status || r.Remembered.State != tc.state || !strings.Contains(errs, tc.mention) || u.marked(t) != tc.marked {
				t.Errorf("exit status %d, state %q, remembered %d, %s", code, r.Remembered.State, u.marked(t), errs)
			}
			// It says so again until somebody looks into it.
			if again, _, _ := u.run(t.Context(), "audit", "verify"); again != code {
				t.Errorf("the second time: exit status %d", again)
			}
			if tc.state == "lost" {
				u.must(t, "audit", "verify", "--accept")
				u.must(t, "audit", "verify")
			}
		})
	}
}

// TestAHeadIsOfOneNetwork, and a file that was spoilt is said, not forgotten.
func TestAHeadIsOfOneNetwork(t *testing.T) {
	_, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	path := strings.TrimSuffix(u.dir.Path("north-ridge"), ".json") + ".audit"
	if err := (profile.AuditMark{NetworkKey: "another", ID: 77}).Save(path); err != nil {
		t.Fatal(err)
	}
	if out := u.must(t, "audit", "verify"); !strings.Contains(out, "none until now") || u.marked(t) != 3 {
		t.Errorf("got %s", out)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.fails(t, ctl.ExitError, "--accept", "audit", "verify")
	u.must(t, "audit", "verify", "--accept")
	u.must(t, "audit", "verify")
}

// TestATamperedGatewayIsFound at a real one, whose card somebody had.
func TestATamperedGatewayIsFound(t *testing.T) {
	d := newDevice(t)
	stop := d.start(t)
	u := newUser(t)
	u.environ["HALO_CLAIM_CODE"], u.environ["HALO_PASSWORD"] = claimCode, newPassword
	u.must(t, "claim", "--gateway=https://"+d.tls)
	for range 4 {
		u.must(t, "network", "epoch", "raise", "--yes")
	}
	if out := u.must(t, "audit", "verify"); !strings.Contains(out, "intact") {
		t.Fatalf("got %s", out)
	}
	u.must(t, "network", "epoch", "raise", "--yes")
	if out := u.must(t, "audit", "verify"); !strings.Contains(out, "leads from there") {
		t.Fatalf("got %s", out)
	}
	remembered := u.marked(t)
	card := func(query string) {
		t.Helper()
		stop()
		db, err := sql.Open("sqlite", filepath.Join(d.state, paths.ConfigDB))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		stop = d.start(t)
	}
	card(`DROP TRIGGER audit_dropped; DELETE FROM audit WHERE id > 6`)
	u.fails(t, ctl.ExitError, "no longer has what was seen here", "audit", "verify")
	for u.must(t, "network", "epoch", "raise", "--yes"); ; {
		var list struct{ Head apitype.AuditHead }
		if err := json.Unmarshal([]byte(u.must(t, "audit", "list", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		if list.Head.ID > remembered {
			break
		}
		u.must(t, "network", "epoch", "raise", "--yes")
	}
	u.fails(t, ctl.ExitError, "no longer has what was seen here", "audit", "verify")
	u.must(t, "audit", "verify", "--accept")
	u.must(t, "audit", "verify")

	card(`UPDATE audit SET actor = 'user:eve' WHERE id = 3`)
	u.fails(t, ctl.ExitError, "record 3 does not fit", "audit", "verify")
	for deadline := time.Now().Add(time.Minute); !strings.Contains(u.must(t, "event", "list", "--kind", "audit."), "audit.tampered"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no event tells of it")
		}
	}
}
