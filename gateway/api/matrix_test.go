package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"halo.internal/gateway/auth"
	"halo.internal/model/apitype"
)

// rule is who may use a route: what docs/api.md says that it needs.
type rule string

const (
	ruleOpen  rule = "open"
	ruleLogin rule = "a login"
	ruleAdmin rule = "admin"
)

// documentedRules are those of the table in docs/api.md, by operation. What is behind a
// comma or semicolon is for people.
func documentedRules(t *testing.T) map[string]rule {
	t.Helper()
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]rule{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		word, _, _ := strings.Cut(strings.ReplaceAll(m[4], ",", ";"), ";")
		rules[m[3]] = rule(strings.TrimSpace(word))
	}
	return rules
}

// who makes requests.
type who struct {
	name, token string
	person      bool
	scopes      []string
}

func (w who) has(scope string) bool {
	return slices.Contains(w.scopes, scope) || slices.Contains(w.scopes, apitype.ScopeAdmin)
}

// everybody is each role, an API token with each scope, and one with all that is no
// admin's but one scope.
func (f *fixture) everybody() []who {
	f.t.Helper()
	root := f.token
	viewer := []string{apitype.ScopeNodesRead, apitype.ScopeTelemetryRead, apitype.ScopeEventsRead, apitype.ScopeSystemRead}
	list := []who{{name: "nobody"}, {"admin", root, true, []string{apitype.ScopeAdmin}}}
	for role, scopes := range map[string][]string{apitype.RoleViewer: viewer, apitype.RoleOperator: append(slices.Clone(viewer), apitype.ScopeNodesWrite)} {
		f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: role, Password: password, Role: role}, nil)
		list = append(list, who{role, f.login(role), true, scopes})
	}
	token := func(name string, scopes ...string) {
		var t apitype.APIToken
		f.want(http.StatusCreated, "POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: name, Scopes: scopes}, &t)
		list = append(list, who{name, t.Token, false, scopes})
	}
	for _, s := range auth.Scopes() {
		token("token with "+s, s)
		if s != apitype.ScopeAdmin {
			token("token without "+s, slices.DeleteFunc(auth.Scopes(), func(o string) bool { return o == s || o == apitype.ScopeAdmin })...)
		}
	}
	return list
}

// Beside the rules: who is refused or served otherwise, and why.
var exceptions = map[string]func(who) (refused bool){
	"create-operator-certificate": func(w who) bool { return !w.person },                  // certificates are for people
	"delete-operator-certificate": func(who) bool { return false },                        // of others there are none: 404
	"remove-overlay-peer":         func(who) bool { return false },                        // the same
	"get-user":                    func(w who) bool { return !w.has(apitype.ScopeAdmin) }, // others' than the own
	"update-user":                 func(w who) bool { return !w.has(apitype.ScopeAdmin) },
	"end-session":                 func(who) bool { return false }, // as with certificates
}

// The bodies that some routes need before they judge who asks.
var bodies = map[string]any{
	"update-user":                 map[string]any{"disabled": false},
	"create-operator-certificate": map[string]any{"key": "x"},
}

// TestEveryRouteForEverybody: who may use which route is what the documentation says of it.
// A route that the documentation lacks has no rule, and fails.
func TestEveryRouteForEverybody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.unheld = true
	rules := documentedRules(t)
	scopes := auth.Scopes()
	everybody := f.everybody()
	root := f.token
	for _, r := range f.routes() {
		need, ok := rules[r.operation]
		if !ok {
			t.Errorf("%s: who may use it? docs/api.md has no rule", r.operation)
			continue
		}
		if !slices.Contains([]rule{ruleOpen, ruleLogin, "a person's login", ruleAdmin}, need) && !slices.Contains(scopes, string(need)) {
			t.Errorf("%s: docs/api.md has the rule %q, expected open, a login, admin or a scope", r.operation, need)
			continue
		}
		path := strings.NewReplacer("{serial}", "7", "{component}", "send", "{kind}", "device").Replace(r.path)
		for {
			begin := strings.IndexByte(path, '{')
			if begin < 0 {
				break
			}
			path = path[:begin] + "x" + path[strings.IndexByte(path, '}')+1:]
		}
		for _, w := range everybody {
			want := "served"
			switch {
			case need == ruleOpen:
			case w.name == "nobody":
				want = "unknown"
			case need == ruleAdmin && !w.has(apitype.ScopeAdmin), slices.Contains(scopes, string(need)) && !w.has(string(need)):
				want = "refused"
			}
			if e := exceptions[r.operation]; e != nil && w.name != "nobody" {
				want = map[bool]string{true: "refused", false: "served"}[e(w)]
			}
			f.token = w.token
			resp, b := f.do(r.method, path, bodies[r.operation])
			var p apitype.Problem
			_ = json.Unmarshal(b, &p) // what is no problem has no type
			got := "served"
			switch {
			case resp.StatusCode == http.StatusUnauthorized && p.Type == "about:blank":
				got = "unknown"
			case resp.StatusCode == http.StatusForbidden && p.Type == apitype.ProblemScope:
				got = "refused"
			}
			if got != want {
				t.Errorf("%s %s, which needs %s, for %s: %s (%d %s), want %s", r.method, path, need, w.name, got, resp.StatusCode, p.Detail, want)
			}
		}
		if r.method == http.MethodGet || need == ruleOpen {
			continue
		}
		// Whatever an admin does is in the audit log.
		f.token = root
		f.do(r.method, path, bodies[r.operation])
		var l apitype.AuditList
		f.want(http.StatusOK, "GET", "/v1/audit?limit=1", nil, &l)
		if len(l.Items) != 1 || l.Items[0].Action != r.operation || l.Items[0].Actor != "user:root" {
			t.Errorf("%s %s is not audited: %+v", r.method, path, l.Items)
		}
	}
	for _, operation := range slices.Sorted(maps.Keys(exceptions)) {
		if !slices.ContainsFunc(f.routes(), func(r route) bool { return r.operation == operation }) {
			t.Errorf("an exception is for %s, which is no route", operation)
		}
	}
}

// What the document says of each operation's needs is what the documentation says.
func TestTheDocumentSaysWhatARouteNeeds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rules := documentedRules(t)
	for path, item := range f.OpenAPI().Paths {
		for method, op := range operations(item) {
			need := rules[op.OperationID]
			text := map[rule]string{ruleOpen: "Open: no login.", ruleAdmin: "Needs an admin.", ruleLogin: "Needs a login.", "a person's login": "Needs a login."}[need]
			if text == "" {
				text = fmt.Sprintf("Needs the scope %s.", need)
			}
			if slices.Contains([]string{"get-user", "update-user", "delete-operator-certificate", "end-session", "remove-overlay-peer"}, op.OperationID) {
				text = "Needs a login." // and more of others' things, as it says
			}
			if op.OperationID == "restore-backup" {
				text = "Needs the ticket of a claim for a restore, or an admin."
			}
			if !strings.HasSuffix(op.Description, text) {
				t.Errorf("%s %s: %q, want %q at its end", method, path, op.Description, text)
			}
		}
	}
}
