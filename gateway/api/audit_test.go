package api

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
)

// during runs something while a capture is under way.
type during struct {
	*air
	do func()
}

func (d during) Capture(context.Context, model.CaptureRequest, io.Writer) error {
	d.do()
	return nil
}

// audited returns the newest entries of captures.
func (f *fixture) audited() (list []string) {
	f.t.Helper()
	entries, err := f.Audit.List(f.t.Context(), "", 100)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries.Items {
		if e.Action == "capture-mesh" {
			list = append(list, fmt.Sprintf("%s %s %d", e.Actor, e.Target, e.Status))
		}
	}
	return list
}

func (f *fixture) exec(query string) {
	f.t.Helper()
	err := f.API.Config.Config.Write(f.t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(query)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// What a person changes is in the log before it is done: a crash in the middle
// leaves an entry without an outcome, and a panic one that failed.
func TestTheIntentIsAuditedBeforeTheOutcome(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var meanwhile []string
	f.Radios = during{&air{}, func() { meanwhile = f.audited() }}
	f.want(http.StatusOK, "POST", "/v1/mesh/capture", model.CaptureRequest{Radio: "phy0"}, nil)
	if want := []string{"user:root  0"}; !slices.Equal(meanwhile, want) {
		t.Errorf("while it was under way: %q, want %q", meanwhile, want)
	}
	if got, want := f.audited(), []string{"user:root phy0 200"}; !slices.Equal(got, want) {
		t.Errorf("then: %q, want %q", got, want)
	}

	f.Radios = during{&air{}, func() { panic("a mistake") }}
	f.want(http.StatusInternalServerError, "POST", "/v1/mesh/capture", model.CaptureRequest{}, nil)
	if got := f.audited(); len(got) != 2 || got[0] != "user:root  500" {
		t.Errorf("after a panic: %q", got)
	}
}

func TestNothingIsDoneThatCannotBeAudited(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	done := false
	f.Radios = during{&air{}, func() { done = true }}
	f.exec(`CREATE TRIGGER audit_full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END`)
	f.want(http.StatusInternalServerError, "POST", "/v1/mesh/capture", model.CaptureRequest{}, nil)
	if done {
		t.Error("it was done without an entry")
	}
	f.exec(`DROP TRIGGER audit_full`)

	// The outcome alone is lost: there is the intent, and an event.
	f.exec(`CREATE TRIGGER audit_full BEFORE INSERT ON audit WHEN NEW.completes <> 0 BEGIN SELECT RAISE(ABORT, 'no'); END`)
	f.want(http.StatusOK, "POST", "/v1/mesh/capture", model.CaptureRequest{}, nil)
	if got := f.audited(); len(got) != 1 || got[0] != "user:root  0" {
		t.Errorf("got %q, want one without an outcome", got)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var events apitype.EventList
		f.want(http.StatusOK, "GET", "/v1/events?kind=audit.incomplete", nil, &events)
		if len(events.Items) == 1 && events.Items[0].Fields["status"] == "200" && events.Items[0].Fields["actor"] == "user:root" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no event tells of it: %+v", events.Items)
		}
	}
}

// An admin sees whether the log is as it was written, and gets what he needs to
// verify it by himself from a head that he has kept.
func TestTheAuditLogIsVerified(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	change := func() {
		t.Helper()
		f.want(http.StatusCreated, "POST", "/v1/admin/join-tokens", apitype.CreateJoinToken{Uses: 1, ExpiresS: 3600}, nil)
	}
	verify := func() (v apitype.AuditVerification) {
		t.Helper()
		f.want(http.StatusOK, "GET", "/v1/audit/verify", nil, &v)
		return v
	}
	change()
	var list apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit?limit=1", nil, &list)
	kept := list.Head
	if v := verify(); !v.Intact || v.Head != kept || v.Records != 3 || kept.ID != 3 || len(kept.Hash) != 64 || v.Since == nil || v.Fault != nil {
		t.Errorf("got %+v, the list's head is %+v", v, kept)
	}
	change()
	change()

	// By himself, in pages.
	trace := func(from, to apitype.AuditHead) error {
		t.Helper()
		return auditlog.Trace(placeOf(t, from), placeOf(t, to), auditlog.Kept, func(after int64) ([][]byte, error) {
			var records [][]byte
			for path := fmt.Sprintf("/v1/audit/records?limit=2&since=%d", after); path != ""; {
				var page apitype.AuditRecordList
				f.want(http.StatusOK, "GET", path, nil, &page)
				for _, r := range page.Items {
					if sum := sha256.Sum256(r.Record); hex.EncodeToString(sum[:]) != r.Hash {
						t.Errorf("record %d does not have its hash", r.ID)
					}
					records = append(records, r.Record)
				}
				if path = ""; page.Next != "" {
					path = "/v1/audit/records?limit=2&cursor=" + page.Next
				}
			}
			return records, nil
		})
	}
	now := verify().Head
	if err := trace(kept, now); err != nil || now.ID != kept.ID+4 {
		t.Errorf("from %+v to %+v: %v", kept, now, err)
	}
	if err := trace(apitype.AuditHead{}, now); err != nil {
		t.Error(err)
	}
	f.want(http.StatusBadRequest, "GET", "/v1/audit/records?cursor=x", nil, nil)
	f.want(http.StatusUnprocessableEntity, "GET", "/v1/audit/records?since=-1", nil, nil)

	f.exec(`UPDATE audit SET actor = 'user:eve' WHERE id = 2`)
	if v := verify(); v.Intact || v.Fault == nil || v.Fault.ID != 2 || v.Fault.Expected == "" || v.Fault.Came == "" || v.Head.ID != 1 {
		t.Errorf("got %+v", v)
	}

	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "olaf", Password: password, Role: apitype.RoleOperator}, nil)
	f.token = f.login("olaf")
	for _, path := range []string{"/v1/audit", "/v1/audit/verify", "/v1/audit/records"} {
		f.want(http.StatusForbidden, "GET", path, nil, nil)
	}
}

func placeOf(t *testing.T, h apitype.AuditHead) auditlog.Head {
	t.Helper()
	hash, err := hex.DecodeString(h.Hash)
	if err != nil {
		t.Fatal(err)
	}
	return auditlog.Head{ID: h.ID, Hash: hash}
}
