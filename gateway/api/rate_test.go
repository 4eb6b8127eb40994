package api

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
)

func TestPaces(t *testing.T) {
	var r rates
	now := time.Now()
	burst := func(caller string, p *pace) (n int) {
		for wait := time.Duration(0); wait == 0; n++ {
			wait, _ = r.take(caller, false, p, now)
		}
		return n - 1
	}
	if n := burst("user:anna", &changes); n != changes.burst {
		t.Errorf("%d changes at once, expected %d", n, changes.burst)
	}
	if n := burst("user:anna", &reads); n != reads.burst {
		t.Errorf("who made many changes may ask %d questions, expected %d", n, reads.burst)
	}
	if n := burst("user:ben", &changes); n != changes.burst {
		t.Errorf("after another's changes, %d, expected %d", n, changes.burst)
	}
	now = now.Add(3 * time.Second)
	if n := burst("user:anna", &changes); n != 3 {
		t.Errorf("three seconds later %d changes, expected 3", n)
	}
	if wait, first := r.take("user:anna", false, &changes, now); wait <= 0 || wait > time.Second || first {
		t.Errorf("then: %s to wait, first %v", wait, first)
	}
	told := func() (n int) {
		for range 2 * changes.burst {
			if _, first := r.take("user:anna", false, &changes, now); first {
				n++
			}
		}
		return n
	}
	now = now.Add(heldBackEvents / 2)
	if n := told(); n != 0 {
		t.Errorf("told of %d times more within an hour", n)
	}
	now = now.Add(heldBackEvents)
	if n := told(); n != 1 {
		t.Errorf("told of %d times an hour later, expected once", n)
	}
}

// TestStrangersTakeABoundedRoom has more addresses come than are remembered: whoever was
// there keeps what is his, and those beyond share one pace, until places are free.
func TestStrangersTakeABoundedRoom(t *testing.T) {
	var r rates
	now := time.Now()
	for i := range maxCallers + reads.burst + 5 {
		r.take(strconv.Itoa(i), true, &reads, now)
	}
	if n := len(r.callers); n > maxCallers+1 {
		t.Errorf("%d callers are remembered, expected at most %d and the others", n, maxCallers)
	}
	if wait, _ := r.take("one more", true, &reads, now); wait == 0 {
		t.Error("those beyond are not held back")
	}
	if wait, _ := r.take("user:anna", false, &reads, now); wait != 0 {
		t.Error("who is logged in waits for strangers")
	}
	if wait, _ := r.take("7", true, &reads, now); wait != 0 {
		t.Error("who was there waits for strangers")
	}
	if wait, _ := r.take("one more", true, &reads, now.Add(2*idleCaller)); wait != 0 || len(r.callers) > 2 {
		t.Errorf("later: %s, %d callers", wait, len(r.callers))
	}
}

// TestAFloodOfRefusedChanges does not reach the audit log, is told of once, and is no one
// else's trouble.
func TestAFloodOfRefusedChanges(t *testing.T) {
	// Not in parallel: what it asks has to come faster than the pace that it is held to.
	f := newFixture(t)
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "ben", Password: password, Role: apitype.RoleOperator}, nil)
	root := f.token
	f.token = f.login("ben")
	got := map[int]int{}
	for range 3 * changes.burst {
		resp, _ := f.do("POST", "/v1/alerts/999/acknowledge", apitype.Acknowledge{})
		got[resp.StatusCode]++
		if resp.StatusCode == http.StatusTooManyRequests {
			if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || s < 1 || s > 2 {
				t.Fatalf("Retry-After: %q", resp.Header.Get("Retry-After"))
			}
		}
	}
	if got[http.StatusTooManyRequests] < changes.burst || got[http.StatusNotFound] < changes.burst {
		t.Errorf("answers by status: %v", got)
	}
	f.want(http.StatusOK, "GET", "/v1/nodes", nil, nil)
	f.token = root
	f.want(http.StatusNotFound, "POST", "/v1/alerts/999/acknowledge", apitype.Acknowledge{}, nil)
	var log apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit?limit=500", nil, &log)
	bens := 0
	for _, e := range log.Items {
		if e.Actor == "user:ben" && e.Action == "acknowledge-alert" {
			bens++
		}
	}
	if bens != got[http.StatusNotFound] {
		t.Errorf("the audit log has %d of ben's requests, of which %d were heard", bens, got[http.StatusNotFound])
	}
	var events apitype.EventList
	f.want(http.StatusOK, "GET", "/v1/events?kind=api.held_back", nil, &events)
	if len(events.Items) != 1 || !strings.Contains(events.Items[0].Message, "user:ben") {
		t.Errorf("events: %s", fmt.Sprint(events.Items))
	}
}

// TestNodesMayComeAllAtOnce, from one network: joining has limits of its own.
func TestNodesMayComeAllAtOnce(t *testing.T) {
	// Not in parallel: what it asks has to come faster than the pace that it is held to.
	f := newFixture(t)
	f.token = ""
	for range 2 * changes.burst {
		if resp, b := f.do("POST", "/v1/nodes/join", model.JoinRequest{}); resp.StatusCode == http.StatusTooManyRequests {
			t.Fatalf("a node that joins is held back: %s", b)
		}
	}
	held := 0
	for range 2 * reads.burst {
		if resp, _ := f.do("GET", "/capabilities", nil); resp.StatusCode == http.StatusTooManyRequests {
			held++
		}
	}
	if held == 0 {
		t.Error("an address asks as much as it likes")
	}
}

// TestBadTokensHaveAPace: an address that comes with them is held back, whatever it asks for,
// and who comes from there with a good one is not.
func TestBadTokensHaveAPace(t *testing.T) {
	// Not in parallel: what it asks has to come faster than the pace that it is held to.
	f := newFixture(t)
	root := f.token
	for _, tc := range []struct{ name, token, method, path string }{
		{"none", "", "POST", "/v1/mesh/scan"},
		{"of a login", "e30.e30.e30", "GET", "/v1/nodes"},
		{"an API token", "halo-api-unknown", "DELETE", "/v1/nodes/x"},
		{"of a live connection", "e30.e30.e30", "GET", "/v1/live"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.API.rates = rates{}
			f.token = tc.token
			got := map[int]int{}
			for range 2 * reads.burst {
				resp, _ := f.do(tc.method, tc.path, nil)
				if got[resp.StatusCode]++; resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
					t.Fatal("it is not said when to come again")
				}
			}
			if got[http.StatusTooManyRequests] == 0 || got[http.StatusUnauthorized] < reads.burst || len(got) != 2 {
				t.Errorf("answers by status: %v", got)
			}
			f.token = root
			f.want(http.StatusOK, "GET", "/v1/nodes", nil, nil)
		})
	}
	f.token = root
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var events apitype.EventList
		f.want(http.StatusOK, "GET", "/v1/events?kind=api.held_back", nil, &events)
		if len(events.Items) == 4 && strings.Contains(events.Items[0].Message, "127.0.0.1") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("expected an event of each, got %+v", events.Items)
		}
	}
}

// TestScopesThatAreMissedHaveAPace, as everything that is asked for.
func TestScopesThatAreMissedHaveAPace(t *testing.T) {
	// Not in parallel: what it asks has to come faster than the pace that it is held to.
	f := newFixture(t)
	f.token = f.loginAs(apitype.RoleViewer)
	got := map[int]int{}
	for range 2 * changes.burst {
		resp, _ := f.do("POST", "/v1/mesh/scan", nil)
		got[resp.StatusCode]++
	}
	if got[http.StatusTooManyRequests] == 0 || got[http.StatusForbidden] < changes.burst || len(got) != 2 {
		t.Errorf("answers by status: %v", got)
	}
}

// TestTheAuditLogIsNotWashedOut by who is no admin, at whatever pace he may change things:
// of what he asks for in a week, less is recorded than the log keeps, and others hear of it.
func TestTheAuditLogIsNotWashedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		now := clock.New(time.Now, time.Time{})
		a := &API{Config: Config{Events: events.New(nil, now, 1, slog.New(slog.NewTextHandler(&logged, nil)))}}
		of := func(name, role string) *caller {
			p := auth.Principal{Kind: "user", Name: name, Scopes: []string{role}}
			return &caller{Principal: p, actor: p.Actor(), request: httptest.NewRequest("DELETE", "/api/auth/sessions/00", nil)}
		}
		viewer, root := of("vera", apitype.ScopeNodesRead), of("root", apitype.ScopeAdmin)
		heard := map[*caller]int{}
		const week = 7 * 24 * 60 * 60
		for range week {
			time.Sleep(time.Second)
			for _, c := range []*caller{viewer, root} {
				if a.hold(t.Context(), "end-session", c) == nil {
					heard[c]++
				}
			}
			a.rates.take("a stranger", true, &reads, time.Now())
		}
		if n := 2 * heard[viewer]; n > auditlog.Kept*7/10 || heard[viewer] < 7*2000 {
			t.Errorf("a viewer makes %d records in a week, of %d", n, auditlog.Kept)
		}
		if heard[root] != week {
			t.Errorf("of an admin's changes, one a second, %d of %d are heard", heard[root], week)
		}
		if !strings.Contains(logged.String(), "user:vera") || strings.Contains(logged.String(), "user:root") {
			t.Errorf("events: %.300s", logged.String())
		}
		err := a.hold(t.Context(), "end-session", viewer)
		if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != http.StatusTooManyRequests || !strings.Contains(p.Detail, "2000 a day") || p.RetryAfter() > time.Minute {
			t.Errorf("then: %v", err)
		}
	})
}

// TestWhatIsUsedUpForADayIsNotForgotten, however many strangers come meanwhile.
func TestWhatIsUsedUpForADayIsNotForgotten(t *testing.T) {
	var r rates
	now := time.Now()
	r.takeN("user:vera", false, &daily, daily.burst, now)
	for range 3 {
		now = now.Add(2 * idleCaller)
		for i := range maxCallers + 10 {
			r.take(strconv.Itoa(i), true, &reads, now)
		}
	}
	if wait, _ := r.takeN("user:vera", false, &daily, daily.burst/2, now); wait == 0 {
		t.Error("it was")
	}
}
