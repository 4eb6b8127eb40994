package auth

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func TestASessionEndsAtOnce(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "eve", apitype.RoleViewer)
	good := func(tokens apitype.Tokens) bool {
		t.Helper()
		_, err := f.bearer(t, tokens.AccessToken)
		return err == nil
	}
	t.Run("by logging out", func(t *testing.T) {
		a, b := f.login(t, "root"), f.login(t, "root")
		if err := f.Logout(t.Context(), a.RefreshToken); err != nil {
			t.Fatal(err)
		}
		if good(a) || !good(b) {
			t.Errorf("the access token of the login that ended is good: %v, the other's: %v", good(a), good(b))
		}
	})
	t.Run("when a refresh token was copied", func(t *testing.T) {
		a := f.login(t, "root")
		next, err := f.Refresh(t.Context(), here, a.RefreshToken)
		if err != nil {
			t.Fatal(err)
		}
		if !good(a) || !good(next) {
			t.Error("a refresh ends the tokens before it")
		}
		f.now = f.now.Add(time.Minute)
		if _, err := f.Refresh(t.Context(), another, a.RefreshToken); err == nil {
			t.Fatal("a refresh token was good twice")
		}
		if good(a) || good(next) {
			t.Error("the thief's and the owner's access tokens go on")
		}
	})
	t.Run("by whoever may", func(t *testing.T) {
		root, eve, other := f.login(t, "root"), f.login(t, "eve"), f.login(t, "eve")
		who := func(tokens apitype.Tokens) Principal {
			t.Helper()
			p, err := f.bearer(t, tokens.AccessToken)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		list := func(p Principal) (all []apitype.Session) {
			t.Helper()
			for cursor := ""; ; {
				l, err := f.Sessions(t.Context(), p, cursor, 1)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, l.Items...)
				if cursor = l.Next; cursor == "" {
					return all
				}
			}
		}
		own := list(who(eve))
		if len(own) != 2 || slices.ContainsFunc(own, func(s apitype.Session) bool {
			return s.Username != "eve" || s.Remote != here.String() || s.Started == nil
		}) {
			t.Errorf("eve sees %+v", own)
		}
		current := slices.IndexFunc(own, func(s apitype.Session) bool { return s.Current })
		if current < 0 || own[current].ID != who(eve).Session || own[1-current].Current {
			t.Errorf("which is hers? %+v", own)
		}
		all := list(who(root))
		if len(all) < 3 {
			t.Errorf("an admin sees %+v", all)
		}
		wantStatus(t, f.EndSession(t.Context(), who(eve), who(root).Session), http.StatusNotFound)
		wantStatus(t, f.EndSession(t.Context(), who(root), "no hex"), http.StatusNotFound)
		machine := Principal{Kind: "token", Name: "eve", Scopes: []string{apitype.ScopeNodesRead}}
		if l := list(machine); len(l) != 0 {
			t.Errorf("a machine of that name sees %+v", l)
		}
		if err := f.EndSession(t.Context(), who(eve), own[1-current].ID); err != nil {
			t.Fatal(err)
		}
		if !good(eve) || good(other) {
			t.Error("the wrong one ended")
		}
		if err := f.EndSession(t.Context(), who(root), who(eve).Session); err != nil || good(eve) {
			t.Errorf("an admin's word: %v, good still: %v", err, good(eve))
		}
		if _, err := f.Sessions(t.Context(), who(root), "no hex", 10); err == nil {
			t.Error("a cursor that is none is taken")
		}
	})
	t.Run("it says where it was used last", func(t *testing.T) {
		a := f.login(t, "eve")
		began := f.now
		f.now = f.now.Add(time.Hour / 2)
		next, err := f.Refresh(t.Context(), another, a.RefreshToken)
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.bearer(t, next.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		l, err := f.Sessions(t.Context(), p, "", 10)
		i := slices.IndexFunc(l.Items, func(s apitype.Session) bool { return s.Current })
		if err != nil || i < 0 || l.Items[i].Remote != another.String() || !l.Items[i].Started.Equal(began.Truncate(time.Millisecond)) || !l.Items[i].LastUsed.Equal(f.now.Truncate(time.Millisecond)) {
			t.Errorf("got %+v, %v; it began %s, now is %s", l.Items, err, began, f.now)
		}
	})
}

// Whoever knows the former password, and has a login under way when it is changed, gets
// none: all logins of before have ended.
func TestALoginThatIsUnderWayWhenThePasswordIsChanged(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	root := f.asUser(t, "root")
	fresh, yes := "another long secret", true
	for name, change := range map[string]func() error{
		"another password": func() error {
			_, err := f.UpdateUser(t.Context(), root, "eve", etag.Match{}, apitype.UpdateUser{Password: &fresh})
			return err
		},
		"may not log in": func() error {
			_, err := f.UpdateUser(t.Context(), root, "eve", etag.Match{}, apitype.UpdateUser{Disabled: &yes})
			return err
		},
		"removed": func() error { return f.DeleteUser(t.Context(), "eve", etag.Match{}) },
		"another of that name": func() error {
			if err := f.DeleteUser(t.Context(), "eve", etag.Match{}); err != nil {
				return err
			}
			_, err := f.CreateUser(t.Context(), apitype.CreateUser{Username: "eve", Password: fresh, Role: apitype.RoleOperator})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.addUser(t, "eve", apitype.RoleOperator)
			f.offered = func(model.TimeOffer) { // once the password was right
				if err := change(); err != nil {
					t.Fatal(err)
				}
			}
			_, err := f.Login(t.Context(), here, "eve", password, &f.now)
			wantProblem(t, err, apitype.ProblemLogin)
			if n := f.count(t, `SELECT count(*) FROM refresh_tokens WHERE username = 'eve'`); n != 0 {
				t.Errorf("%d refresh tokens are good", n)
			}
			if err := f.DeleteUser(t.Context(), "eve", etag.Match{}); err != nil && name != "removed" {
				t.Fatal(err)
			}
		})
	}
}

// What would outlive a login is not made for one that has ended since its request came.
func TestNothingIsMadeForALoginThatHasEnded(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	root := f.asUser(t, "root")
	if err := f.EndSession(t.Context(), root, root.Session); err != nil {
		t.Fatal(err)
	}
	_, err := f.IssueOperator(t.Context(), root, apitype.CreateOperatorCertificate{Key: identity.New().Public().Base64()})
	wantStatus(t, err, http.StatusUnauthorized)
	_, err = f.CreateAPIToken(t.Context(), root, apitype.CreateAPIToken{Name: "x", Scopes: []string{apitype.ScopeAdmin}})
	wantStatus(t, err, http.StatusUnauthorized)
	if n := f.count(t, `SELECT (SELECT count(*) FROM operator_certificates) + (SELECT count(*) FROM api_tokens)`); n != 0 {
		t.Errorf("%d were made", n)
	}
}

// Whoever has got hold of an access token must not find the password with it.
func TestGuessingOnesOwnPasswordIsSlowed(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	root := Principal{Kind: "user", Name: "root", Role: apitype.RoleAdmin, Scopes: []string{apitype.ScopeAdmin}}
	next := "another horse battery"
	for range freeFailures + 1 {
		_, err := f.UpdateUser(t.Context(), root, "root", etag.Match{}, apitype.UpdateUser{Password: &next, CurrentPassword: "guess"})
		wantStatus(t, err, http.StatusForbidden)
		if f.logins.allow(counter{key: "password root"}) != nil {
			break
		}
	}
	_, err := f.UpdateUser(t.Context(), root, "root", etag.Match{}, apitype.UpdateUser{Password: &next, CurrentPassword: password})
	wantProblem(t, err, apitype.ProblemRateLimited)
}
