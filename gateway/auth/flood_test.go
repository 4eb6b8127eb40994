package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"halo.internal/gateway/etag"
	"halo.internal/model/apitype"
	"halo.internal/model/claim"
)

// atOnce runs as many of these at a time as it says, and returns how many ended with
// each type of problem; "" is none.
func atOnce(t *testing.T, many int, f func() error) map[string]int {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	begin := make(chan struct{})
	for range many {
		wg.Go(func() {
			<-begin
			err := f()
			typ := ""
			if p, ok := errors.AsType[*apitype.Problem](err); ok {
				typ = p.Type
			} else if err != nil {
				t.Error(err)
			}
			if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Type == apitype.ProblemRateLimited && p.RetryAfter() <= 0 {
				t.Errorf("%v does not say when to come again", p)
			}
			mu.Lock()
			got[typ]++
			mu.Unlock()
		})
	}
	close(begin)
	wg.Wait()
	return got
}

// Guesses that come at once are heard as few as those that come one after the other.
func TestGuessesAtOnceAreSlowedToo(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "vera", apitype.RoleViewer)
	const many = 60
	t.Run("logins", func(t *testing.T) {
		got := atOnce(t, many, func() error {
			_, err := f.Login(t.Context(), another, "root", "wrong password", nil)
			return err
		})
		if got[apitype.ProblemLogin] > freeFailures || got[apitype.ProblemLogin]+got[apitype.ProblemRateLimited] != many {
			t.Errorf("of %d wrong logins at once: %v, want at most %d that were heard", many, got, freeFailures)
		}
	})
	t.Run("names that nobody has", func(t *testing.T) {
		from := netip.MustParseAddr("2001:db8::1")
		var mu sync.Mutex
		got := atOnce(t, many, func() error {
			mu.Lock()
			from = from.Next() // of one /64
			who := from
			mu.Unlock()
			_, err := f.Login(t.Context(), who, "user-"+who.String(), "wrong password", nil)
			return err
		})
		if got[apitype.ProblemLogin] > freeFailures {
			t.Errorf("of %d wrong logins at once: %v, want at most %d that were heard", many, got, freeFailures)
		}
	})
	t.Run("the present password", func(t *testing.T) {
		vera := Principal{Kind: "user", Name: "vera", Role: apitype.RoleViewer, Scopes: roleScopes(apitype.RoleViewer)}
		fresh := "another long secret"
		got := atOnce(t, many, func() error {
			_, err := f.UpdateUser(t.Context(), vera, "vera", etag.Match{}, apitype.UpdateUser{Password: &fresh, CurrentPassword: "wrong"})
			return err
		})
		if got["about:blank"] > freeFailures || got["about:blank"]+got[apitype.ProblemRateLimited] != many {
			t.Errorf("of %d wrong passwords at once: %v, want at most %d that were heard", many, got, freeFailures)
		}
	})
}

// An admin has no long line before him, whatever one stranger asks for at once.
func TestAStrangersLineIsShort(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	done, err := f.Turn(t.Context()) // somebody's derivation, so that all others wait
	if err != nil {
		t.Fatal(err)
	}
	const many = 60
	type end struct{ who, typ string }
	ends := make(chan end, many+1)
	log := func(who string, from netip.Addr, pass string) {
		_, err := f.Login(t.Context(), from, "root", pass, nil)
		p, _ := errors.AsType[*apitype.Problem](err)
		if p == nil {
			p = &apitype.Problem{}
		}
		ends <- end{who, p.Type}
	}
	for range many {
		go log("stranger", another, "wrong password")
	}
	for range many - freeFailures { // they are refused while the others wait
		if e := <-ends; e.typ != apitype.ProblemRateLimited {
			t.Fatalf("got %+v, want a stranger who is refused", e)
		}
	}
	go log("admin", here, password)
	done()
	before := 0
	for {
		e := <-ends
		if e.who == "admin" {
			if e.typ != "" {
				t.Errorf("the admin's login: %s", e.typ)
			}
			break
		}
		before++
	}
	if before > freeFailures {
		t.Errorf("%d of a stranger's attempts came before the admin's", before)
	}
}

// codeOf is a claim code, and the key of it that a client derives.
func (f *fixture) codeOf(t *testing.T) (string, claim.Key) {
	t.Helper()
	code, err := f.PrepareClaim(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := claim.Derive(code, salt)
	if err != nil {
		t.Fatal(err)
	}
	return code, key
}

// begun is a client's first post of a claim.
func (f *fixture) begun(t *testing.T, from netip.Addr, key claim.Key) (finish func(username, pass string, restore bool) error) {
	t.Helper()
	tls := bytes.Repeat([]byte{1}, 32)
	nonce := claim.NewNonce()
	text := base64.StdEncoding.EncodeToString(nonce)
	start, err := f.ClaimStart(t.Context(), from, text, tls)
	if err != nil {
		t.Fatal(err)
	}
	server, err := base64.StdEncoding.DecodeString(start.ServerNonce)
	if err != nil {
		t.Fatal(err)
	}
	e := claim.Exchange{ClientNonce: nonce, ServerNonce: server, Binding: tls}
	return func(username, pass string, restore bool) error {
		if restore {
			username, pass = claim.ForRestore, ""
		}
		proof, err := key.ClientProof(e, username, pass)
		if err != nil {
			t.Fatal(err)
		}
		r := apitype.ClaimRequest{ClientNonce: text, ServerNonce: start.ServerNonce, Proof: base64.StdEncoding.EncodeToString(proof), Username: username, Password: pass, Restore: restore}
		if restore {
			_, err = f.ClaimRestore(t.Context(), from, r, tls)
		} else {
			_, err = f.ClaimFinish(t.Context(), from, r, tls)
		}
		return err
	}
}

// Whatever strangers begin, from however many addresses, an exchange goes on.
func TestOthersExchangesDoNotEndAClaim(t *testing.T) {
	for name, restore := range map[string]bool{"claim": false, "restore": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			_, key := f.codeOf(t)
			finish := f.begun(t, here, key)
			nonce := base64.StdEncoding.EncodeToString(claim.NewNonce())
			for i := range 1000 {
				from := another
				if i%2 == 0 {
					from = netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
				}
				if _, err := f.ClaimStart(t.Context(), from, nonce, nil); err != nil {
					if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Type != apitype.ProblemRateLimited {
						t.Fatal(err)
					}
				}
			}
			if err := finish("root", password, restore); err != nil {
				t.Errorf("the admin's exchange after a thousand of strangers: %v", err)
			}
		})
	}
}

// Of an exchange, only what this process has sent within two minutes counts, with the
// client's nonce that it was for, and for one proof that is right.
func TestExchangesEnd(t *testing.T) {
	f := newFixture(t)
	code, key := f.codeOf(t)
	finish := f.begun(t, here, key)
	if err := finish("", "", true); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, finish("", "", true), apitype.ProblemClaimProof) // a proof that somebody has seen

	finish = f.begun(t, here, key)
	f.mono = f.mono.Add(claimLife + 1e6)
	wantProblem(t, finish("", "", true), apitype.ProblemClaimProof)

	finish = f.begun(t, here, key)
	f.claims = newClaims(salt) // another process
	f.claims.code, f.claims.now = code, f.logins.now
	wantProblem(t, finish("", "", true), apitype.ProblemClaimProof)

	a, b := f.begunRaw(t), f.begunRaw(t)
	a.ServerNonce = b.ServerNonce // of another client's
	_, err := f.ClaimRestore(t.Context(), here, a, nil)
	wantProblem(t, err, apitype.ProblemClaimProof)

	f.mono = f.mono.Add(forgetAfter + 1e9)
	for i := range 200 {
		if err := f.begun(t, here, key)("", "", true); err != nil {
			t.Fatalf("restore %d: %v", i, err)
		}
	}
	if n := len(f.claims.spent); n > maxSpent {
		t.Errorf("%d exchanges are remembered, want at most %d", n, maxSpent)
	}
}

// begunRaw is an exchange with the right proof for its own nonces' exchange only.
func (f *fixture) begunRaw(t *testing.T) apitype.ClaimRequest {
	t.Helper()
	nonce := base64.StdEncoding.EncodeToString(claim.NewNonce())
	start, err := f.ClaimStart(t.Context(), here, nonce, nil)
	if err != nil {
		t.Fatal(err)
	}
	return apitype.ClaimRequest{ClientNonce: nonce, ServerNonce: start.ServerNonce, Proof: start.Proof, Restore: true}
}

// Who asks first for an exchange waits for the key of the code, and his line is short as well.
func TestTheLineForTheKeyOfTheClaimCode(t *testing.T) {
	f := newFixture(t)
	if _, err := f.PrepareClaim(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	done, err := f.Turn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	nonce := base64.StdEncoding.EncodeToString(claim.NewNonce())
	const many = 40
	ends := make(chan error, many)
	for range many {
		go func() {
			_, err := f.ClaimStart(t.Context(), another, nonce, nil)
			ends <- err
		}()
	}
	for range many - maxWaiting {
		wantProblem(t, <-ends, apitype.ProblemRateLimited)
	}
	done()
	for range maxWaiting {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
}
