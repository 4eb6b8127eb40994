package auth

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

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

// cheap has a user's password checked at no cost.
func (f *fixture) cheap(t *testing.T, name string) {
	t.Helper()
	salt := []byte("0123456789abcdef")
	phc := fmt.Sprintf("$argon2id$v=%d$m=8,t=1,p=1$%s$%s", argon2.Version, b64.EncodeToString(salt), b64.EncodeToString(argon2.IDKey([]byte(password), salt, 1, 8, 1, argonKey)))
	err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE users SET password = ? WHERE username = ?`, phc, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What succeeds has a pace, too: a viewer with a right password, or a token, must not wear
// the card nor fill the audit log.
func TestSuccessHasAPace(t *testing.T) {
	for name, one := range map[string]func(f *fixture, user string, from netip.Addr) func() error{
		"logins": func(f *fixture, user string, from netip.Addr) func() error {
			return func() error {
				_, err := f.Login(t.Context(), from, user, password, nil)
				return err
			}
		},
		"refreshes": func(f *fixture, user string, from netip.Addr) func() error {
			tokens := f.login(t, user)
			return func() error {
				next, err := f.Refresh(t.Context(), from, tokens.RefreshToken)
				if err == nil {
					tokens = next
				}
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			for _, user := range []string{"eve", "vera"} {
				f.addUser(t, user, apitype.RoleViewer)
				f.cheap(t, user)
			}
			eve := one(f, "eve", another)
			for range successBurst {
				if err := eve(); err != nil {
					t.Fatal(err)
				}
			}
			before := f.db.Commits()
			err := eve()
			wantProblem(t, err, apitype.ProblemRateLimited)
			if p, _ := errors.AsType[*apitype.Problem](err); p.RetryAfter() > successEvery {
				t.Errorf("she is to wait for %s", p.RetryAfter())
			}
			if n := f.db.Commits() - before; n != 0 {
				t.Errorf("who is refused writes %d times", n)
			}
			if err := one(f, "vera", another)(); err != nil {
				t.Errorf("somebody else: %v", err)
			}
			f.login(t, "eve") // from elsewhere
			f.mono = f.mono.Add(successEvery)
			if err := eve(); err != nil {
				t.Errorf("then: %v", err)
			}
			wantProblem(t, eve(), apitype.ProblemRateLimited)
		})
	}
}

// However often somebody logs in, and refreshes, there is a bound to what is kept of it.
func TestSessionsOfAUserAreBounded(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "eve", apitype.RoleViewer)
	f.cheap(t, "eve")
	pass := func() { f.now, f.mono = f.now.Add(successEvery), f.mono.Add(successEvery) }
	first, second := f.login(t, "eve"), f.login(t, "eve")
	for range maxSessions - 2 {
		pass()
		f.login(t, "eve")
	}
	if n := f.count(t, `SELECT count(DISTINCT family) FROM refresh_tokens`); n != maxSessions {
		t.Fatalf("%d sessions, want %d", n, maxSessions)
	}
	pass()
	first, err := f.Refresh(t.Context(), here, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	last := f.login(t, "eve")
	if n := f.count(t, `SELECT count(DISTINCT family) FROM refresh_tokens`); n != maxSessions {
		t.Errorf("%d sessions, want %d", n, maxSessions)
	}
	for name, tokens := range map[string]apitype.Tokens{"in use": first, "new": last} {
		if _, err := f.bearer(t, tokens.AccessToken); err != nil {
			t.Errorf("a session that is %s has ended: %v", name, err)
		}
	}
	_, err = f.bearer(t, second.AccessToken)
	wantStatus(t, err, http.StatusUnauthorized)

	p, err := f.bearer(t, last.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	former := last
	for range maxRotated + 20 {
		pass()
		former = last
		if last, err = f.Refresh(t.Context(), here, last.RefreshToken); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count(t, `SELECT count(*) FROM refresh_tokens WHERE family = x'`+p.Session+`'`); n != maxRotated+1 {
		t.Errorf("%d tokens are kept of a session, want %d and the one that is good", n, maxRotated)
	}
	if _, err := f.bearer(t, last.AccessToken); err != nil {
		t.Errorf("the session has ended: %v", err)
	}
	f.now = f.now.Add(refreshGrace + time.Second)
	_, err = f.Refresh(t.Context(), another, former.RefreshToken)
	wantProblem(t, err, apitype.ProblemRefresh)
	if _, err := f.bearer(t, last.AccessToken); err == nil {
		t.Error("a token was good twice")
	}
}

// No login looks through all tokens of everybody, in the one transaction that there is.
func TestExpiredTokensAreFoundByAnIndex(t *testing.T) {
	f := newFixture(t)
	for query, args := range map[string][]any{dropExpired: {1}, shorten: {1, 1}} {
		var id, parent, unused int
		var plan string
		if err := f.db.Read().QueryRow("EXPLAIN QUERY PLAN "+query, args...).Scan(&id, &parent, &unused, &plan); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, "refresh_tokens_expires") {
			t.Errorf("%s: %s", query, plan)
		}
	}
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
