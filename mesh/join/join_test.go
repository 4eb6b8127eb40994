package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// authority is a CA with one server certificate.
type authority struct {
	hash [sha256.Size]byte
	cert tls.Certificate
}

func newAuthority(t *testing.T, notBefore time.Time, address net.IP, withCA bool) authority {
	t.Helper()
	return newAuthorities(t, notBefore, notBefore, address, withCA)
}

// newAuthorities has CA and server certificate begin at times of their own.
func newAuthorities(t *testing.T, caBegins, notBefore time.Time, address net.IP, withCA bool) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: caBegins, NotAfter: caBegins.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "gateway"}, NotBefore: notBefore, NotAfter: notBefore.Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{address}}
	caDER, errCA := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	leafDER, errLeaf := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err := errors.Join(errCA, errLeaf); err != nil {
		t.Fatal(err)
	}
	chain := [][]byte{leafDER}
	if withCA {
		chain = append(chain, caDER)
	}
	return authority{sha256.Sum256(caDER), tls.Certificate{Certificate: chain, PrivateKey: key}}
}

// gatewayOf serves a join route with that certificate.
func gatewayOf(t *testing.T, a authority, network identity.Key, h http.HandlerFunc) Gateway {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{a.cert}}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	addr, err := netip.ParseAddrPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return Gateway{Network: network.Public(), Addr: addr, CA: a.hash}
}

var loopback = net.IPv4(127, 0, 0, 1)

func problem(w http.ResponseWriter, status int, typ, detail, nonce string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": typ, "title": http.StatusText(status), "status": status, "detail": detail, "nonce": nonce})
}

func membership(network, node identity.Key) model.Membership {
	return model.Membership{
		Node: node.ID(), Name: "mast", Network: network.Public().Base64(), OverlayV4: netip.MustParseAddr("10.42.1.2"),
		OverlayV6: identity.Overlay(network.Public(), node.Public()), GatewayWireGuardKey: base64.StdEncoding.EncodeToString(make([]byte, 32)),
	}
}

// honest asks for a signature and then calls then.
func honest(t *testing.T, key identity.PublicKey, then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q model.JoinRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/v1/nodes/join" || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		if q.Nonce == "" {
			if q.Signature != "" {
				t.Error("signed without a nonce")
			}
			problem(w, http.StatusUnauthorized, "urn:halo:problem:join-nonce", "sign", "the-nonce")
			return
		}
		sig, err := base64.StdEncoding.DecodeString(q.Signature)
		if err != nil || q.Nonce != "the-nonce" || !key.Verify(model.JoinContext, q.SignedBytes(), sig) {
			t.Errorf("second post is not signed over the nonce: %+v", q)
		}
		then(w, r)
	}
}

func TestRequest(t *testing.T) {
	network, node := identity.New(), identity.New()
	good := membership(network, node)
	answer := func(change func(*model.Membership)) http.HandlerFunc {
		m := good
		change(&m)
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(m) }
	}
	refuse := func(status int, typ, detail string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { problem(w, status, typ, detail, "") }
	}
	for _, tc := range []struct {
		name    string
		then    http.HandlerFunc
		refused string // problem type
		pending bool
		mention string
	}{
		{name: "admitted", then: answer(func(*model.Membership) {})},
		{name: "expired token", then: refuse(403, apitype.ProblemTokenExpired, "token ended at noon"), refused: apitype.ProblemTokenExpired, mention: "token ended at noon"},
		{name: "wrong token", then: refuse(403, apitype.ProblemTokenInvalid, ""), refused: apitype.ProblemTokenInvalid, mention: "Forbidden"},
		{name: "revoked", then: refuse(403, apitype.ProblemJoinRevoked, "gone"), refused: apitype.ProblemJoinRevoked, mention: "gone"},
		{name: "pending", then: refuse(403, apitype.ProblemJoinPending, ""), pending: true, mention: "approve"},
		{name: "pending with a spent token", then: refuse(403, apitype.ProblemJoinPending, "wait: its join token was\nrevoked"), pending: true, mention: "wait: its join token was revoked"},
		{name: "nonce again", then: refuse(401, apitype.ProblemJoinNonce, "replayed"), mention: "replayed"},
		{name: "database locked", then: refuse(503, apitype.ProblemStore, "locked"), mention: "locked"},
		{name: "too often", then: refuse(429, apitype.ProblemRateLimited, "slower"), mention: "slower"},
		{name: "another node's membership", then: answer(func(m *model.Membership) { m.Node = identity.New().ID() }), mention: "expected node"},
		{name: "another network's", then: answer(func(m *model.Membership) { m.Network = identity.New().Public().Base64() }), mention: "expected network"},
		{name: "address outside of the overlay", then: answer(func(m *model.Membership) { m.OverlayV4 = netip.MustParseAddr("192.0.2.1") }), mention: "10.42.0.0/16"},
		{name: "somebody else's IPv6 address", then: answer(func(m *model.Membership) { m.OverlayV6 = netip.MustParseAddr("fd00::1") }), mention: "expected overlay address"},
		{name: "no WireGuard key", then: answer(func(m *model.Membership) { m.GatewayWireGuardKey = "AAAA" }), mention: "WireGuard"},
		{name: "not JSON", then: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, mention: "expected a membership"},
		{name: "endless", then: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", maxAnswer+1)) }, mention: "at most"},
		{name: "redirect", then: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusTemporaryRedirect)
		}, mention: "307"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newAuthority(t, time.Now().Add(-time.Minute), loopback, true)
			g := gatewayOf(t, a, network, honest(t, node.Public(), tc.then))
			got, err := Request(t.Context(), g, node, model.JoinRequest{Network: network.Public().Base64(), IdentityKey: node.Public().Base64(), Token: "halo-join-x"})
			if tc.mention == "" {
				if err != nil || got != good {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.mention) {
				t.Fatalf("got %v, want mention of %q", err, tc.mention)
			}
			no, isRefusal := errors.AsType[*RefusedError](err)
			if isRefusal != (tc.refused != "") || isRefusal && no.Type != tc.refused {
				t.Errorf("got refusal %+v, want %q", no, tc.refused)
			}
			if errors.Is(err, ErrPending) != tc.pending {
				t.Errorf("got %v, want pending: %v", err, tc.pending)
			}
		})
	}
}

// An older gateway refuses members that it does not know: the serial number goes only to
// one that says that it takes it.
func TestSerialNumberGoesToWhoTakesIt(t *testing.T) {
	network, node := identity.New(), identity.New()
	for name, takes := range map[string][]string{"": nil, "00e1": {"something newer", apitype.TakesSerial}} {
		a := newAuthority(t, time.Now().Add(-time.Minute), loopback, true)
		var posts []model.JoinRequest
		g := gatewayOf(t, a, network, func(w http.ResponseWriter, r *http.Request) {
			var q model.JoinRequest
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
				t.Error(err)
			}
			posts = append(posts, q)
			if q.Nonce == "" {
				w.WriteHeader(http.StatusUnauthorized)
				_ = json.NewEncoder(w).Encode(apitype.Problem{Type: apitype.ProblemJoinNonce, Nonce: "the-nonce", Takes: takes})
				return
			}
			sig, err := base64.StdEncoding.DecodeString(q.Signature)
			if err != nil || !node.Public().Verify(model.JoinContext, q.SignedBytes(), sig) {
				t.Errorf("not signed over all: %+v", q)
			}
			_ = json.NewEncoder(w).Encode(membership(network, node))
		})
		if _, err := Request(t.Context(), g, node, model.JoinRequest{Network: network.Public().Base64(), IdentityKey: node.Public().Base64(), Serial: "00e1"}); err != nil {
			t.Error(err)
		}
		if len(posts) != 2 || posts[0].Serial != "" || posts[1].Serial != name {
			t.Errorf("takes %q: got %+v", takes, posts)
		}
	}
}

func TestServerIsVerified(t *testing.T) {
	network, node := identity.New(), identity.New()
	past := time.Now().Add(-time.Minute)
	for _, tc := range []struct {
		name  string
		a     authority
		other bool // announce another CA
		ok    bool
	}{
		{"announced CA", newAuthority(t, past, loopback, true), false, true},
		{"the gateway's clock is two years ahead", newAuthority(t, past.AddDate(2, 0, 0), loopback, true), false, true},
		{"the gateway's clock is two years behind", newAuthority(t, past.AddDate(-2, 0, 0), loopback, true), false, true},
		{"another CA", newAuthority(t, past, loopback, true), true, false},
		{"CA left out of the chain", newAuthority(t, past, loopback, false), false, false},
		{"certificate of another address", newAuthority(t, past, net.IPv4(192, 0, 2, 1), true), false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked := false
			g := gatewayOf(t, tc.a, network, func(w http.ResponseWriter, _ *http.Request) {
				asked = true
				problem(w, http.StatusForbidden, apitype.ProblemJoinRejected, "no", "")
			})
			if tc.other {
				g.CA[0] ^= 1
			}
			_, err := Request(t.Context(), g, node, model.JoinRequest{Token: "secret"})
			if errors.Is(err, ErrCA) == tc.ok || asked != tc.ok {
				t.Errorf("got %v, server was told: %v, want it told: %v", err, asked, tc.ok)
			}
		})
	}
}

// A server that uses a certificate of its own making with the CA beside it is
// not one of the CA.
func TestForeignLeafBesideTheCA(t *testing.T) {
	right := newAuthority(t, time.Now().Add(-time.Minute), loopback, true)
	wrong := newAuthority(t, time.Now().Add(-time.Minute), loopback, false)
	wrong.cert.Certificate = append(wrong.cert.Certificate, right.cert.Certificate[1])
	wrong.hash = right.hash
	g := gatewayOf(t, wrong, identity.New(), func(http.ResponseWriter, *http.Request) { t.Error("a foreign server was asked") })
	if _, err := Request(t.Context(), g, identity.New(), model.JoinRequest{}); !errors.Is(err, ErrCA) {
		t.Errorf("got %v, want ErrCA", err)
	}
}

func TestPersist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		script := []error{errors.New("no route"), errors.New("no route"), ErrPending, &RefusedError{Type: "token-expired", Reason: "late"}, nil}
		attempt := func(context.Context) (model.Membership, error) {
			at = append(at, time.Since(begin))
			return model.Membership{Name: "mast"}, script[len(at)-1]
		}
		var states []model.JoinState
		m, err := Persist(t.Context(), attempt, func(s model.JoinState, _ error) { states = append(states, s) }, nil)
		if err != nil || m.Name != "mast" {
			t.Fatalf("got %+v, %v", m, err)
		}
		if got := fmt.Sprint(states); got != "[trying trying pending refused]" {
			t.Errorf("states: %s", got)
		}
		for i, want := range []time.Duration{retryFirst, 2 * retryFirst, pendingEvery, refusedFirst} {
			if got := at[i+1] - at[i]; got < want*4/5 || got > want*6/5 {
				t.Errorf("wait %d: got %s, want about %s", i, got, want)
			}
		}
	})
}

// A node that waits for an admin asks often at first, and later leaves the air
// to others; it never gives up.
func TestPersistWaitsForAnAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		attempt := func(context.Context) (model.Membership, error) {
			if at = append(at, time.Now()); len(at) == pendingSoon+50 {
				return model.Membership{}, nil
			}
			return model.Membership{}, &pendingError{"its join token was revoked"}
		}
		var detail string
		if _, err := Persist(t.Context(), attempt, func(s model.JoinState, err error) { detail = fmt.Sprint(s, ": ", err) }, nil); err != nil {
			t.Fatal(err)
		}
		if detail != "pending: its join token was revoked" {
			t.Errorf("reported %q", detail)
		}
		for i := range at[1:] {
			want := pendingEvery
			if i >= pendingSoon {
				want = pendingMost
			}
			if got := at[i+1].Sub(at[i]); got < want*4/5 || got > want*6/5 {
				t.Errorf("wait %d: got %s, want about %s", i, got, want)
			}
		}
	})
}

func TestPersistHurriesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		hurry := make(chan struct{})
		tries := 0
		done := make(chan error)
		go func() {
			_, err := Persist(ctx, func(context.Context) (model.Membership, error) {
				tries++
				return model.Membership{}, &RefusedError{Type: "join-rejected"}
			}, func(model.JoinState, error) {}, hurry)
			done <- err
		}()
		synctest.Wait()
		hurry <- struct{}{}
		synctest.Wait()
		if tries != 2 {
			t.Errorf("tried %d times, want a second time at once", tries)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func FuzzParse(f *testing.F) {
	network, node := identity.New(), identity.New()
	f.Add(Marshal(membership(network, node)))
	f.Add([]byte(`{"node":"n-","overlay_v4":"::"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b, network.Public(), node.Public())
		if err == nil && (m.Node != node.ID() || !m.OverlayV4.Is4()) {
			t.Fatalf("taken: %+v", m)
		}
	})
}
