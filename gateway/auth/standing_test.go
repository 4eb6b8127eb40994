package auth

import (
	"slices"
	"testing"

	"halo.internal/gateway/etag"
	"halo.internal/model/apitype"
)

// Somebody who has shown who it is stands for as long as the login or the API token does.
func TestStanding(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "vera", apitype.RoleViewer)
	root, vera := f.asUser(t, "root"), f.asUser(t, "vera")
	token, err := f.bearer(t, f.apiTokenOf(t, root, apitype.ScopeNodesRead).Token)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Principal{root, vera, token} {
		now, err := f.Standing(t.Context(), Principal{Kind: p.Kind, Name: p.Name, Session: p.Session})
		if err != nil || !slices.Equal(now.Scopes, p.Scopes) || now.Actor() != p.Actor() {
			t.Errorf("%s: got %+v, %v, want %+v", p.Actor(), now, err, p)
		}
	}
	gone := func(what string, p Principal) {
		t.Helper()
		_, err := f.Standing(t.Context(), p)
		if err == nil {
			t.Fatalf("%s stands", what)
		}
		wantProblem(t, err, "about:blank")
	}
	gone("nobody", Principal{Kind: "user", Name: "eve", Session: vera.Session})
	gone("a login without a session", Principal{Kind: "user", Name: "vera"})
	gone("an API token that there is not", Principal{Kind: "token", Name: "x"})
	if err := f.EndSession(t.Context(), root, vera.Session); err != nil {
		t.Fatal(err)
	}
	gone("a session that was ended", vera)
	if err := f.DeleteAPIToken(t.Context(), token.Name); err != nil {
		t.Fatal(err)
	}
	gone("an API token that was deleted", token)
	again := f.asUser(t, "vera")
	if err := f.DeleteUser(t.Context(), "vera", etag.Match{}); err != nil {
		t.Fatal(err)
	}
	gone("a user who was removed", again)
}
