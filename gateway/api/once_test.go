package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"halo.internal/identity"
	"halo.internal/model/apitype"
)

func TestCreatingCallsAreCarriedOutOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	whole := t
	changes := 0
	f.Changed = func() { changes++ }
	for i, tc := range []struct {
		path, list string
		in, other  any
		status     int
		secret     string // member of the answer
	}{
		{"/api/auth/users", "/api/auth/users", apitype.CreateUser{Username: "vera", Password: password, Role: apitype.RoleViewer}, apitype.CreateUser{Username: "olaf", Password: password, Role: apitype.RoleViewer}, 201, ""},
		{"/api/auth/tokens", "/api/auth/tokens", apitype.CreateAPIToken{Name: "probe", Scopes: []string{apitype.ScopeNodesRead}}, apitype.CreateAPIToken{Name: "probe", Scopes: []string{apitype.ScopeAdmin}}, 201, "token"},
		{"/api/auth/operator-certificates", "/api/auth/operator-certificates", apitype.CreateOperatorCertificate{Key: identity.New().Public().Base64(), Label: "laptop"}, apitype.CreateOperatorCertificate{Key: identity.New().Public().Base64()}, 201, "certificate"},
		{"/v1/admin/join-tokens", "/v1/admin/join-tokens", apitype.CreateJoinToken{Uses: 1, ExpiresS: 600}, apitype.CreateJoinToken{Uses: 2, ExpiresS: 600}, 201, "token"},
		{"/v1/trust/macs", "/v1/trust/macs", apitype.TrustMAC{MAC: "02:00:00:00:00:01"}, apitype.TrustMAC{MAC: "02:00:00:00:00:02"}, 201, ""},
		{"/v1/brain/neurons", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01"}, apitype.CreateNeuron{Name: "n02"}, 201, ""},
		{"/v1/network/epoch/raise", "", apitype.RaiseEpoch{}, apitype.RaiseEpoch{Above: new(uint64)}, 200, ""},
	} {
		t.Run(tc.path, func(t *testing.T) {
			f.t = t
			f.headers = map[string]string{"Idempotency-Key": fmt.Sprintf(`"a-key-of-a-client-%d"`, i)}
			defer func() { f.headers = nil }()
			changes = 0
			first, body := f.do("POST", tc.path, tc.in)
			again, body2 := f.do("POST", tc.path, tc.in)
			if first.StatusCode != tc.status || again.StatusCode != tc.status || !bytes.Equal(body, body2) || first.Header.Get("ETag") != again.Header.Get("ETag") {
				t.Errorf("got %s %s, then %s %s", first.Status, body, again.Status, body2)
			}
			if first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Idempotency-Replayed") != "true" || changes != 1 {
				t.Errorf("replayed: %q, then %q; changed %d times", first.Header.Get("Idempotency-Replayed"), again.Header.Get("Idempotency-Replayed"), changes)
			}
			var answer map[string]any
			if err := json.Unmarshal(body2, &answer); err != nil || tc.secret != "" && len(fmt.Sprint(answer[tc.secret])) < 20 {
				t.Errorf("the answer lacks its %s: %s, %v", tc.secret, body2, err)
			}
			var p apitype.Problem
			f.want(http.StatusUnprocessableEntity, "POST", tc.path, tc.other, &p)
			if p.Type != apitype.ProblemKeyReused {
				t.Errorf("another request with this key: %+v", p)
			}
			f.headers = map[string]string{"Idempotency-Key": "short"}
			f.want(http.StatusBadRequest, "POST", tc.path, tc.in, nil)
			var list struct{ Items []json.RawMessage }
			if tc.list != "" {
				f.want(http.StatusOK, "GET", tc.list, nil, &list)
				if len(list.Items) != 1 && tc.list != "/api/auth/users" || len(list.Items) > 2 {
					t.Errorf("there are %d", len(list.Items))
				}
			}
		})
	}
	f.t = whole
	// What was refused left nothing, and who repeats is in the audit log.
	f.headers = map[string]string{"Idempotency-Key": "a-key-of-a-client-x"}
	f.want(http.StatusConflict, "POST", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01", Description: "another"}, nil)
	f.headers = nil
	f.want(http.StatusNoContent, "DELETE", "/v1/brain/neurons/n01", nil, nil)
	f.headers = map[string]string{"Idempotency-Key": "a-key-of-a-client-x"}
	f.want(http.StatusCreated, "POST", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01", Description: "another"}, nil)
	var l apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit?limit=50", nil, &l)
	for _, target := range []string{"vera", "vera (again)"} {
		if !slices.ContainsFunc(l.Items, func(e apitype.AuditEntry) bool {
			return e.Action == "create-user" && e.Target == target && e.Status == 201
		}) {
			t.Errorf("the audit log lacks %s", target)
		}
	}
}

// Every POST of somebody who is known takes a key, and says so.
func TestWhatTakesAnIdempotencyKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var without []string
	for path, item := range f.OpenAPI().Paths {
		for method, op := range operations(item) {
			has := false
			for _, p := range op.Parameters {
				has = has || p.Name == "Idempotency-Key"
			}
			if has && (method != http.MethodPost || len(op.Security) == 0) {
				t.Errorf("%s %s takes a key", method, path)
			}
			if !has && method == http.MethodPost {
				without = append(without, op.OperationID)
			}
		}
	}
	slices.Sort(without)
	if got := strings.Join(without, " "); got != "capture-mesh claim create-backup import-telemetry join-node login refresh restore-backup" {
		t.Errorf("without: %s", got)
	}
}
