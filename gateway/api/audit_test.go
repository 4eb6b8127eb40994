package api

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
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
	entries, _, err := f.Audit.List(f.t.Context(), "", 100)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
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
	f.exec(`CREATE TRIGGER audit_full BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'no'); END`)
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
