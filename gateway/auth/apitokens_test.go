package auth

import (
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/store/storetest"
	"halo.internal/model/apitype"
)

// asUser is who a user is once he has logged in.
func (f *fixture) asUser(t *testing.T, name string) Principal {
	t.Helper()
	p, err := f.bearer(t, f.login(t, name).AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// apiTokenOf makes an API token for what somebody may do.
func (f *fixture) apiTokenOf(t *testing.T, by Principal, scopes ...string) apitype.APIToken {
	t.Helper()
	tok, err := f.CreateAPIToken(t.Context(), by, apitype.CreateAPIToken{Name: "probe", Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// scopesOf is what a token is good for; nil: nothing.
func (f *fixture) scopesOf(t *testing.T, token string) []string {
	t.Helper()
	p, err := f.bearer(t, token)
	if err != nil {
		wantProblem(t, err, "about:blank")
		return nil
	}
	return p.Scopes
}

// TestAPITokensEndWithTheirUser, those that he has made with another token too, and do
// not come back with another user of that name.
func TestAPITokensEndWithTheirUser(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "eve", apitype.RoleAdmin)
	eve, root := f.asUser(t, "eve"), f.asUser(t, "root")
	first := f.apiTokenOf(t, eve, apitype.ScopeAdmin)
	machine, err := f.bearer(t, first.Token)
	if err != nil {
		t.Fatal(err)
	}
	second := f.apiTokenOf(t, machine, apitype.ScopeAdmin)
	kept := f.apiTokenOf(t, root, apitype.ScopeAdmin)
	if second.By != "user:eve" {
		t.Errorf("a token that eve's has made is %q's", second.By)
	}
	// The one that has made it may end before it.
	if err := f.DeleteAPIToken(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.CreateAPIToken(t.Context(), machine, apitype.CreateAPIToken{Name: "late", Scopes: []string{apitype.ScopeAdmin}}); err == nil {
		t.Error("a token that has ended made another")
	}
	if f.scopesOf(t, second.Token) == nil {
		t.Error("a token ended with the one that it was made with")
	}
	first = f.apiTokenOf(t, eve, apitype.ScopeAdmin)
	if err := f.DeleteUser(t.Context(), "eve", etag.Match{}); err != nil {
		t.Fatal(err)
	}
	ended := func(when string) {
		t.Helper()
		for name, tok := range map[string]apitype.APIToken{"first": first, "second": second} {
			if s := f.scopesOf(t, tok.Token); s != nil {
				t.Errorf("%s, eve's %s token is good for %v", when, name, s)
			}
		}
	}
	ended("once she was removed")
	if list, err := f.APITokens(t.Context(), "", 10); err != nil || len(list.Items) != 1 || list.Items[0].ID != kept.ID {
		t.Errorf("the list has %+v, %v", list.Items, err)
	}
	f.addUser(t, "eve", apitype.RoleAdmin)
	ended("once there is another")
	if f.scopesOf(t, kept.Token) == nil {
		t.Error("a token ended with somebody else")
	}
	// Who was removed while his request came in makes none.
	if err := f.DeleteUser(t.Context(), "eve", etag.Match{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.CreateAPIToken(t.Context(), eve, apitype.CreateAPIToken{Name: "late", Scopes: []string{apitype.ScopeAdmin}}); err == nil {
		t.Error("somebody who was removed made a token")
	}
}

// TestAPITokensMayWhatTheirUserMay, as he is now.
func TestAPITokensMayWhatTheirUserMay(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "eve", apitype.RoleAdmin)
	root, eve := f.asUser(t, "root"), f.asUser(t, "eve")
	tokens := map[string]apitype.APIToken{}
	for _, scopes := range [][]string{{apitype.ScopeAdmin}, {apitype.ScopeNodesWrite, apitype.ScopeNodesRead}, {apitype.ScopeNodesWrite}, {apitype.ScopeTelemetryRead}} {
		tokens[fmt.Sprint(scopes)] = f.apiTokenOf(t, eve, scopes...)
	}
	viewer, operator, admin, yes, no, fresh := apitype.RoleViewer, apitype.RoleOperator, apitype.RoleAdmin, true, false, "another long secret"
	for _, tc := range []struct {
		name   string
		change apitype.UpdateUser
		want   map[string][]string
	}{
		{"another password", apitype.UpdateUser{Password: &fresh}, map[string][]string{
			"[admin]": {apitype.ScopeAdmin}, "[nodes:write nodes:read]": {apitype.ScopeNodesRead, apitype.ScopeNodesWrite}, "[nodes:write]": {apitype.ScopeNodesWrite}, "[telemetry:read]": {apitype.ScopeTelemetryRead}}},
		{"an operator", apitype.UpdateUser{Role: &operator}, map[string][]string{
			"[admin]": roleScopes(operator), "[nodes:write nodes:read]": {apitype.ScopeNodesRead, apitype.ScopeNodesWrite}, "[nodes:write]": {apitype.ScopeNodesWrite}, "[telemetry:read]": {apitype.ScopeTelemetryRead}}},
		{"a viewer", apitype.UpdateUser{Role: &viewer}, map[string][]string{
			"[admin]": roleScopes(viewer), "[nodes:write nodes:read]": {apitype.ScopeNodesRead}, "[nodes:write]": {}, "[telemetry:read]": {apitype.ScopeTelemetryRead}}},
		{"disabled", apitype.UpdateUser{Disabled: &yes}, map[string][]string{}},
		{"an admin again", apitype.UpdateUser{Disabled: &no, Role: &admin}, map[string][]string{
			"[admin]": {apitype.ScopeAdmin}, "[nodes:write nodes:read]": {apitype.ScopeNodesRead, apitype.ScopeNodesWrite}, "[nodes:write]": {apitype.ScopeNodesWrite}, "[telemetry:read]": {apitype.ScopeTelemetryRead}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := f.UpdateUser(t.Context(), root, "eve", etag.Match{}, tc.change); err != nil {
				t.Fatal(err)
			}
			for name, tok := range tokens {
				if got, want := f.scopesOf(t, tok.Token), tc.want[name]; !slices.Equal(got, want) || (got == nil) != (want == nil) {
					t.Errorf("a token for %s is good for %v, want %v", name, got, want)
				}
			}
		})
	}
}

// TestDeadAPITokensTakeNoRoom: those that have expired, and those whose user a former
// release has removed, go when there is need for it.
func TestDeadAPITokensTakeNoRoom(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	root := f.asUser(t, "root")
	fill := func(n int, by string, expires any) {
		t.Helper()
		err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
			for range n {
				if _, err := tx.Exec(`INSERT INTO api_tokens (id, hash, name, scopes, created, created_by, expires) VALUES (lower(hex(randomblob(8))), randomblob(32), 'n', 'nodes:read', 1, ?, ?)`, by, expires); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	fill(400, "user:root", f.now.Add(-time.Hour).UnixMilli())
	fill(300, "user:gone", nil)
	fill(298, "user:root", nil)
	one := f.apiTokenOf(t, root, apitype.ScopeNodesRead)
	if n := f.count(t, `SELECT count(*) FROM api_tokens`); n != 999 {
		t.Errorf("%d tokens are kept, want all while there is room", n)
	}
	f.apiTokenOf(t, root, apitype.ScopeNodesRead)
	f.apiTokenOf(t, root, apitype.ScopeNodesRead)
	if n := f.count(t, `SELECT count(*) FROM api_tokens`); n != 301 {
		t.Errorf("%d tokens are kept, want those that are good", n)
	}
	if f.scopesOf(t, one.Token) == nil {
		t.Error("a token that is good has gone")
	}
	fill(699, "user:root", f.now.Add(time.Hour).UnixMilli())
	_, err := f.CreateAPIToken(t.Context(), root, apitype.CreateAPIToken{Name: "x", Scopes: []string{apitype.ScopeNodesRead}})
	wantProblem(t, err, apitype.ProblemFull)
}

// madeWith has tokens be made with others, as a former release has written it down.
func (f *fixture) madeWith(t *testing.T, other map[string]string) {
	t.Helper()
	err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
		for tok, by := range other {
			if _, err := tx.Exec(`UPDATE api_tokens SET created_by = 'token:' || ? WHERE id = ?`, by, tok); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAPITokensOfAFormerReleaseWhileTheCardIsFull are good all the same, and their user's
// whatever goes of those that they were made with.
func TestAPITokensOfAFormerReleaseWhileTheCardIsFull(t *testing.T) {
	for _, tc := range []struct {
		name  string
		goes  func(t *testing.T, f *fixture, root Principal, first apitype.APIToken)
		stays bool
	}{
		{"the other one is deleted", func(t *testing.T, f *fixture, _ Principal, first apitype.APIToken) {
			if err := f.DeleteAPIToken(t.Context(), first.ID); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"room is needed", func(t *testing.T, f *fixture, root Principal, first apitype.APIToken) {
			err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
				_, err := tx.Exec(`UPDATE api_tokens SET expires = 1 WHERE id = ?`, first.ID)
				for range maxAPITokens {
					if _, next := tx.Exec(`INSERT INTO api_tokens (id, hash, name, scopes, created, created_by, expires) VALUES (lower(hex(randomblob(8))), randomblob(32), 'n', 'nodes:read', 1, 'user:gone', NULL)`); next != nil {
						return next
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			f.apiTokenOf(t, root, apitype.ScopeAdmin)
		}, true},
		{"the user is removed", func(t *testing.T, f *fixture, _ Principal, _ apitype.APIToken) {
			if err := f.DeleteUser(t.Context(), "eve", etag.Match{}); err != nil {
				t.Fatal(err)
			}
			f.addUser(t, "eve", apitype.RoleAdmin)
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			f.addUser(t, "root", apitype.RoleAdmin)
			f.addUser(t, "eve", apitype.RoleOperator)
			root, eve := f.asUser(t, "root"), f.asUser(t, "eve")
			first, second, third, lost := f.apiTokenOf(t, eve, apitype.ScopeNodesRead), f.apiTokenOf(t, eve, apitype.ScopeNodesRead), f.apiTokenOf(t, eve, apitype.ScopeAdmin), f.apiTokenOf(t, eve, apitype.ScopeAdmin)
			f.madeWith(t, map[string]string{second.ID: first.ID, third.ID: second.ID, lost.ID: "of-one-that-was-deleted"})
			takes := storetest.Refuse(t, f.db)
			var err error
			if f.Service, err = New(t.Context(), Config{DB: f.db, Secrets: f.secret, Clock: f.clock, Events: f.events, Key: f.network, Epoch: func() uint64 { return 1 }}); err != nil {
				t.Fatal(err)
			}
			if got, want := f.scopesOf(t, third.Token), roleScopes(apitype.RoleOperator); !slices.Equal(got, want) {
				t.Errorf("a token is good for %v, want %v", got, want)
			}
			if s := f.scopesOf(t, lost.Token); s != nil {
				t.Errorf("a token of nobody's is good for %v", s)
			}
			takes()
			tc.goes(t, f, root, first)
			for name, tok := range map[string]apitype.APIToken{"second": second, "third": third} {
				if s := f.scopesOf(t, tok.Token); (s != nil) != tc.stays {
					t.Errorf("the %s token is good for %v", name, s)
				}
			}
		})
	}
}

// TestAPITokensOfAFormerRelease, which told of those made with another only by which.
func TestAPITokensOfAFormerRelease(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	root := f.asUser(t, "root")
	first, second, third, lost := f.apiTokenOf(t, root, apitype.ScopeAdmin), f.apiTokenOf(t, root, apitype.ScopeAdmin), f.apiTokenOf(t, root, apitype.ScopeAdmin), f.apiTokenOf(t, root, apitype.ScopeAdmin)
	f.madeWith(t, map[string]string{second.ID: first.ID, third.ID: second.ID, lost.ID: "of-one-that-was-deleted"})
	var err error
	if f.Service, err = New(t.Context(), Config{DB: f.db, Secrets: f.secret, Clock: f.clock, Events: f.events, Key: f.network, Epoch: func() uint64 { return 1 }}); err != nil {
		t.Fatal(err)
	}
	for name, tok := range map[string]apitype.APIToken{"first": first, "second": second, "third": third} {
		if !slices.Equal(f.scopesOf(t, tok.Token), []string{apitype.ScopeAdmin}) {
			t.Errorf("the %s token is not good any more", name)
		}
	}
	if s := f.scopesOf(t, lost.Token); s != nil {
		t.Errorf("a token of nobody's is good for %v", s)
	}
	before := f.db.Commits()
	if _, err = New(t.Context(), Config{DB: f.db, Secrets: f.secret, Clock: f.clock, Events: f.events, Key: f.network, Epoch: func() uint64 { return 1 }}); err != nil {
		t.Fatal(err)
	}
	if n := f.db.Commits() - before; n != 0 {
		t.Errorf("the next start wrote %d times", n)
	}
}
