// Package admin is a network's admin, for the lab's own use: it claims the gateway
// and asks its API, as haloctl does for people, over the forwarded port. TLS is
// verified against the CA that the claim proved.
package admin

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"halo.internal/model/apitype"
	"halo.internal/model/claim"
)

// Limits of one call: an emulated gateway that has just started is slow.
const (
	timeout   = 20 * time.Second
	maxAnswer = 16 << 20

	// claimTimeout is that of a claim, which cannot be asked again as other calls can: each
	// of its two derives a key (argon2id), while everything else in the machine starts.
	claimTimeout = 2 * time.Minute
)

// user is the name of the admin.
const user = "admin"

// Admin is logged in whenever it asks. Its methods may be called from any
// goroutine.
type Admin struct {
	base     string
	password string
	http     *http.Client

	mu    sync.Mutex // guards token
	token string     // of the present session; empty before the first
}

// New is the admin of a gateway that is claimed. ca is the network's.
func New(base string, ca *x509.Certificate, password string) *Admin {
	return &Admin{base: base, password: password, http: &http.Client{Timeout: timeout, Transport: &http.Transport{TLSClientConfig: issuedBy(ca)}}}
}

// issuedBy trusts who has a certificate of the CA, by whatever name and at whatever
// time: the port is forwarded, and clocks of the lab go wrong.
func issuedBy(ca *x509.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: func(c tls.ConnectionState) error {
		if len(c.PeerCertificates) == 0 {
			return errors.New("the gateway sent no certificate")
		}
		leaf := c.PeerCertificates[0]
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		return err
	}}
}

// Claim makes the admin of the gateway at base, with a password that is made up.
// Nothing secret is sent before the gateway has proved that it knows the code.
func Claim(ctx context.Context, base, code string) (*Admin, error) {
	var leaf *x509.Certificate
	first := &Admin{base: base, http: &http.Client{Timeout: claimTimeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // the claim proves who it is
		VerifyConnection: func(c tls.ConnectionState) error {
			if len(c.PeerCertificates) == 0 || leaf != nil && !bytes.Equal(leaf.Raw, c.PeerCertificates[0].Raw) {
				return errors.New("expected one certificate of the gateway, and the same throughout")
			}
			leaf = c.PeerCertificates[0]
			return nil
		},
	}}}}
	defer first.http.CloseIdleConnections()
	x := claim.Exchange{ClientNonce: claim.NewNonce()}
	ask := apitype.ClaimRequest{ClientNonce: base64.StdEncoding.EncodeToString(x.ClientNonce)}
	var hello, done apitype.ClaimAnswer
	if err := first.call(ctx, http.MethodPost, "/api/auth/claim", nil, ask, &hello); err != nil {
		return nil, err
	}
	if leaf == nil {
		return nil, errors.New("claim: expected TLS")
	}
	x.Binding = claim.Binding(leaf)
	salt, err1 := base64.StdEncoding.DecodeString(hello.Salt)
	nonce, err2 := base64.StdEncoding.DecodeString(hello.ServerNonce)
	theirs, err3 := base64.StdEncoding.DecodeString(hello.Proof)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("claim: expected base64: %w", err)
	}
	x.ServerNonce = nonce
	key, err := claim.Derive(code, salt)
	if err != nil {
		return nil, err
	}
	if !key.VerifyServer(x, theirs) {
		return nil, errors.New("claim: the gateway does not know its claim code")
	}
	password := rand.Text()
	proof, err := key.ClientProof(x, user, password)
	if err != nil {
		return nil, err
	}
	ask.ServerNonce, ask.Proof, ask.Username, ask.Password = hello.ServerNonce, base64.StdEncoding.EncodeToString(proof), user, password
	if err := first.call(ctx, http.MethodPost, "/api/auth/claim", nil, ask, &done); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(done.CA))
	if block == nil {
		return nil, errors.New("claim: expected the network's CA in PEM")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("claim: the network's CA: %w", err)
	}
	return New(base, ca, password), nil
}

// Close ends idle connections.
func (a *Admin) Close() { a.http.CloseIdleConnections() }

// do makes a call with a session, and reads the answer.
func (a *Admin) do(ctx context.Context, method, path string, query url.Values, body, answer any) error {
	b, err := a.fetch(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	return read(method, path, b, answer)
}

// fetch makes a call with a session, which is begun if there is none any more, at the pace
// at which the gateway takes them: what it holds back was not done.
func (a *Admin) fetch(ctx context.Context, method, path string, query url.Values, body any) ([]byte, error) {
	for tried, held := false, 0; ; {
		if _, err := a.session(ctx); err != nil {
			return nil, err
		}
		b, err := a.send(ctx, method, path, query, body)
		p, refused := errors.AsType[*apitype.Problem](err)
		switch {
		case refused && p.Status == http.StatusUnauthorized && !tried:
			tried = true
			a.setToken("")
		case refused && p.Type == apitype.ProblemRateLimited && held < mostHeld:
			held++
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Second):
			}
		default:
			return b, err
		}
	}
}

const mostHeld = 60 // times, of a second each

// session returns the token of the present session, which is begun if there is none.
func (a *Admin) session(ctx context.Context) (token string, err error) {
	a.mu.Lock()
	token = a.token
	a.mu.Unlock()
	if token != "" {
		return token, nil
	}
	var t apitype.Tokens
	if err := a.call(ctx, http.MethodPost, "/api/auth/login", nil, apitype.LoginRequest{Username: user, Password: a.password}, &t); err != nil {
		return "", err
	}
	a.setToken(t.AccessToken)
	return t.AccessToken, nil
}

func (a *Admin) setToken(t string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = t
}

// call makes one request and reads the answer.
func (a *Admin) call(ctx context.Context, method, path string, query url.Values, body, answer any) error {
	b, err := a.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	return read(method, path, b, answer)
}

// send makes one request. A refusal is an *apitype.Problem.
func (a *Admin) send(ctx context.Context, method, path string, query url.Values, body any) ([]byte, error) {
	var in io.Reader
	kind := "application/json"
	switch body := body.(type) {
	case nil:
	case form:
		in, kind = bytes.NewReader(body.text), body.kind
	default:
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path+"?"+query.Encode(), in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	a.mu.Lock()
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	a.mu.Unlock()
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		p := &apitype.Problem{}
		if json.Unmarshal(b, p) != nil || p.Title == "" {
			p.Title = resp.Status
		}
		p.Status = resp.StatusCode
		return nil, fmt.Errorf("%s %s: %w", method, path, p)
	}
	return b, nil
}

func read(method, path string, b []byte, answer any) error {
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s %s: expected the gateway's JSON: %w", method, path, err)
	}
	return nil
}
