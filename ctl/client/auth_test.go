package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/model/apitype"
	"halo.internal/model/claim"
)

const (
	code     = "7K3M-Q0ZT-4WXPB"
	password = "correct horse battery"
)

func TestClaimPinsTheCAOfAGatewayThatKnowsTheCode(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, x509.ExtKeyUsageServerAuth)
	g := &claimable{code: code, binding: claim.Binding(cert.Leaf), ca: ca.cert}
	at := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	done, err := Claim(t.Context(), serve(t, always(cert), g), strings.ToLower(code), "admin", password, &at)
	if err != nil {
		t.Fatal(err)
	}
	if Fingerprint(done.CA) != Fingerprint(ca.cert) || done.Tokens.AccessToken != "access" || done.Tokens.Username != "admin" {
		t.Errorf("got CA %s and user %q", Fingerprint(done.CA), done.Tokens.Username)
	}
	if len(g.times) != 1 || !g.times[0].Equal(at) {
		t.Errorf("it was told the times %v, want %s", g.times, at)
	}
}

// The password must reach nobody who has not proved the code together with
// the key of the very connection that it is sent over.
func TestClaimSendsNoPasswordToAnybodyElse(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cert, stranger := ca.issue(t, x509.ExtKeyUsageServerAuth), other.issue(t, x509.ExtKeyUsageServerAuth)
	for _, tc := range []struct {
		name string
		g    *claimable
		pick func() tls.Certificate
		is   func(error) bool
	}{
		{"who guesses a code", &claimable{code: "0000-0000-00000", binding: claim.Binding(stranger.Leaf), ca: other.cert}, always(stranger),
			func(err error) bool { return errors.Is(err, ErrClaimProof) }},
		{"who relays the gateway's proof", &claimable{code: code, binding: claim.Binding(cert.Leaf), ca: ca.cert}, always(stranger),
			func(err error) bool { return errors.Is(err, ErrClaimProof) }},
		{"who takes over after the proof", &claimable{code: code, binding: claim.Binding(cert.Leaf), ca: ca.cert}, oneThenOther(cert, stranger),
			func(err error) bool { _, ok := errors.AsType[*UntrustedError](err); return ok }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close") // a second handshake for the second post
				tc.g.ServeHTTP(w, r)
			})
			_, err := Claim(t.Context(), serve(t, tc.pick, h), code, "admin", password, nil)
			if !tc.is(err) {
				t.Errorf("got %v", err)
			}
			if seen := tc.g.seen(); len(seen) != 0 {
				t.Errorf("%d passwords were sent", len(seen))
			}
		})
	}
}

func oneThenOther(first, then tls.Certificate) func() tls.Certificate {
	var n atomic.Int32
	return func() tls.Certificate {
		if n.Add(1) == 1 {
			return first
		}
		return then
	}
}

func TestClaimRefusesACAThatIsNotTheServers(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cert := ca.issue(t, x509.ExtKeyUsageServerAuth)
	g := &claimable{code: code, binding: claim.Binding(cert.Leaf), ca: other.cert}
	_, err := Claim(t.Context(), serve(t, always(cert), g), code, "admin", password, nil)
	if _, ok := errors.AsType[*UntrustedError](err); !ok {
		t.Errorf("got %v, want UntrustedError", err)
	}
}

func TestOnlyWhatTheNetworksCAIssuedToAServerIsTrusted(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, apitype.NodeList{}) })
	for _, tc := range []struct {
		name  string
		cert  tls.Certificate
		trust bool
	}{
		{"the network's server", ca.issue(t, x509.ExtKeyUsageServerAuth), true},
		{"the network's server, its clock two years behind", ca.issueAt(t, x509.ExtKeyUsageServerAuth, time.Now().AddDate(-2, 0, 0)), true},
		{"the network's server, its clock two years ahead", ca.issueAt(t, x509.ExtKeyUsageServerAuth, time.Now().AddDate(2, 0, 0)), true},
		{"a client of the network", ca.issue(t, x509.ExtKeyUsageClientAuth), false},
		{"another network's server", other.issue(t, x509.ExtKeyUsageServerAuth), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := New(serve(t, always(tc.cert), h), ca.cert, bearer{"x"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.Nodes(t.Context())
			_, untrusted := errors.AsType[*UntrustedError](err)
			if tc.trust && err != nil || !tc.trust && !untrusted {
				t.Errorf("trusted %v, got %v", tc.trust, err)
			}
		})
	}
}

func TestFetchCA(t *testing.T) {
	ca := newAuthority(t)
	full := ca.issue(t, x509.ExtKeyUsageServerAuth)
	got, err := FetchCA(t.Context(), serve(t, always(full), http.NotFoundHandler()))
	if err != nil || Fingerprint(got) != Fingerprint(ca.cert) {
		t.Errorf("got %v, %v", got, err)
	}
	foreign := full
	foreign.Certificate = [][]byte{full.Certificate[0], newAuthority(t).cert.Raw}
	bare := full
	bare.Certificate = full.Certificate[:1]
	for name, cert := range map[string]tls.Certificate{"leaf alone": bare, "a CA that did not issue the leaf": foreign} {
		if got, err := FetchCA(t.Context(), serve(t, always(cert), http.NotFoundHandler())); err == nil {
			t.Errorf("%s: took %s", name, Fingerprint(got))
		}
	}
}

func FuzzParseCA(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if ca, err := ParseCA(text); err == nil && !ca.IsCA {
			t.Fatalf("took a certificate that is no CA")
		}
	})
}
