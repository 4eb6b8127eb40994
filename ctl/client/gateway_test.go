package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"halo.internal/model/apitype"
	"halo.internal/model/claim"
)

// authority is a network CA made for one test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	return newAuthorityAt(t, time.Now().AddDate(-5, 0, 0))
}

// newAuthorityAt is the CA of a network that a build of that time made.
func newAuthorityAt(t *testing.T, build time.Time) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test network"}, NotBefore: build.AddDate(0, 0, -1), NotAfter: build.AddDate(40, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{key, sign(t, c, c, key, key)}
}

func sign(t *testing.T, c, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue makes a certificate for that use, named like no address of the test.
func (a authority) issue(t *testing.T, use x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	return a.issueAt(t, use, time.Now())
}

// issueAt is issue by a gateway whose clock shows now.
func (a authority) issueAt(t *testing.T, use x509.ExtKeyUsage, now time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "gateway.halo"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}, DNSNames: []string{"gateway.halo"},
	}
	leaf := sign(t, c, a.cert, key, a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

// serve runs a handler over TLS with the certificate that pick returns at each
// handshake.
func serve(t *testing.T, pick func() tls.Certificate, h http.Handler) *url.URL {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what is tested
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{pick()}}, nil
	}}
	s.StartTLS()
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func always(c tls.Certificate) func() tls.Certificate { return func() tls.Certificate { return c } }

func answer(w http.ResponseWriter, status int, v any) {
	kind := "application/json"
	if status >= 400 {
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the test's client reads it or fails
}

// claimable is the gateway's side of a claim.
type claimable struct {
	code    string
	binding []byte // of the key that it believes it serves with
	ca      *x509.Certificate

	mu        sync.Mutex // guards what follows
	passwords []string   // that reached it
	times     []time.Time
	open      claim.Exchange
}

func (g *claimable) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passwords
}

func (g *claimable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var req apitype.ClaimRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		answer(w, http.StatusBadRequest, apitype.Problem{Title: err.Error()})
		return
	}
	salt := make([]byte, claim.SaltSize)
	key, err := claim.Derive(g.code, salt)
	if err != nil {
		answer(w, http.StatusInternalServerError, apitype.Problem{Title: err.Error()})
		return
	}
	b64 := base64.StdEncoding
	if req.Proof == "" {
		nonce, _ := b64.DecodeString(req.ClientNonce)
		g.open = claim.Exchange{ClientNonce: nonce, ServerNonce: claim.NewNonce(), Binding: g.binding}
		proof, err := key.ServerProof(g.open)
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, apitype.Problem{Title: err.Error()})
			return
		}
		answer(w, http.StatusOK, apitype.ClaimAnswer{Salt: b64.EncodeToString(salt), ServerNonce: b64.EncodeToString(g.open.ServerNonce), Proof: b64.EncodeToString(proof)})
		return
	}
	g.passwords = append(g.passwords, req.Password)
	if req.Time != nil {
		g.times = append(g.times, *req.Time)
	}
	proof, _ := b64.DecodeString(req.Proof)
	if !key.VerifyClient(g.open, req.Username, req.Password, proof) {
		answer(w, http.StatusForbidden, apitype.Problem{Type: apitype.ProblemClaimProof, Detail: "wrong proof"})
		return
	}
	answer(w, http.StatusOK, apitype.ClaimAnswer{CA: EncodeCA(g.ca), Tokens: &apitype.Tokens{AccessToken: "access", RefreshToken: "refresh", Username: req.Username, Role: apitype.RoleAdmin, ExpiresIn: 3600}})
}
