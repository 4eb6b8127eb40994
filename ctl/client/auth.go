package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"halo.internal/model/apitype"
	"halo.internal/model/claim"
)

// Claimed is what a claim leaves: the first user's session, and the network's
// CA, known to be the right one since the gateway proved the claim code.
type Claimed struct {
	Tokens     apitype.Tokens
	CA         *x509.Certificate
	NetworkKey string
}

// ErrClaimProof is returned for a gateway that does not know the claim code:
// the code is mistyped or for another gateway, or somebody sits between.
var ErrClaimProof = errors.New("the gateway did not prove the claim code, so no password was sent: compare the code with the one shown, and the address")

// Claim makes the first user of the gateway at base. Who owns the TLS key on
// the other side is unknown until it has proved the claim code together with
// that key; only then, and only to that key, the password goes. at is as for Login.
func Claim(ctx context.Context, base *url.URL, code, username, password string, at *time.Time) (Claimed, error) {
	p, err := prove(ctx, base, code, username, password)
	if err != nil {
		return Claimed{}, err
	}
	defer p.client.Close()
	p.second.Username, p.second.Password, p.second.Time = username, password, at
	var done apitype.ClaimAnswer
	ca, err := p.finish(ctx, &done)
	if err != nil {
		return Claimed{}, err
	}
	if done.Tokens == nil {
		return Claimed{}, errors.New("claim: expected tokens in the gateway's second answer")
	}
	return Claimed{Tokens: *done.Tokens, CA: ca, NetworkKey: p.salt}, nil
}

// proved is a gateway that has proved the claim code, and what proves that we know it.
type proved struct {
	client *Client
	peer   *samePeer
	second apitype.ClaimRequest
	salt   string
}

// prove is the first half of a claim. The second is for that name and password.
func prove(ctx context.Context, base *url.URL, code, username, password string) (_ *proved, err error) {
	if _, err := claim.Normalise(code); err != nil {
		return nil, err
	}
	peer := &samePeer{}
	var conf *tls.Config
	if base.Scheme == "https" {
		conf = &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: peer.verify}
	}
	c := newClient(base, conf, nil)
	defer func() {
		if err != nil {
			c.Close()
		}
	}()

	x := claim.Exchange{ClientNonce: claim.NewNonce()}
	first := apitype.ClaimRequest{ClientNonce: base64.StdEncoding.EncodeToString(x.ClientNonce)}
	var hello apitype.ClaimAnswer
	if err := c.call(ctx, request{method: http.MethodPost, path: "/api/auth/claim", body: first, anon: true}, &hello); err != nil {
		return nil, err
	}
	x.Binding = peer.binding()
	salt, serverProof, err := unpack(hello, &x)
	if err != nil {
		return nil, err
	}
	key, err := claim.Derive(code, salt)
	if err != nil {
		return nil, err
	}
	if !key.VerifyServer(x, serverProof) {
		return nil, ErrClaimProof
	}
	proof, err := key.ClientProof(x, username, password)
	if err != nil {
		return nil, err
	}
	second := first
	second.ServerNonce, second.Proof = hello.ServerNonce, base64.StdEncoding.EncodeToString(proof)
	return &proved{c, peer, second, hello.Salt}, nil
}

// finish is the second half, and returns the network's CA, which has issued the TLS key's
// certificate.
func (p *proved) finish(ctx context.Context, done *apitype.ClaimAnswer) (*x509.Certificate, error) {
	if err := p.client.call(ctx, request{method: http.MethodPost, path: "/api/auth/claim", body: p.second, anon: true}, done); err != nil {
		return nil, err
	}
	ca, err := ParseCA(done.CA)
	if err != nil {
		return nil, err
	}
	if chain := p.peer.certificates(); len(chain) > 0 {
		if err := issued(ca, chain); err != nil {
			return nil, &UntrustedError{Gateway: p.client.base.Host, Err: err}
		}
	}
	return ca, nil
}

func unpack(hello apitype.ClaimAnswer, x *claim.Exchange) (salt, proof []byte, err error) {
	for _, f := range []struct {
		name, text string
		to         *[]byte
	}{{"salt", hello.Salt, &salt}, {"server_nonce", hello.ServerNonce, &x.ServerNonce}, {"proof", hello.Proof, &proof}} {
		if *f.to, err = base64.StdEncoding.DecodeString(f.text); err != nil {
			return nil, nil, fmt.Errorf("claim: %s: expected base64: %w", f.name, err)
		}
	}
	return salt, proof, nil
}

// samePeer holds the certificates of the first connection and refuses another
// key on a later one.
type samePeer struct {
	mu    sync.Mutex // guards chain: handshakes run in the transport's goroutines
	chain []*x509.Certificate
}

func (p *samePeer) verify(cs tls.ConnectionState) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(cs.PeerCertificates) == 0 {
		return errors.New("it sent no certificate")
	}
	if p.chain != nil && !slices.Equal(claim.Binding(p.chain[0]), claim.Binding(cs.PeerCertificates[0])) {
		return &UntrustedError{Err: errors.New("its TLS key changed between two requests")}
	}
	p.chain = cs.PeerCertificates
	return nil
}

func (p *samePeer) certificates() []*x509.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.chain
}

// binding is empty on a plain connection.
func (p *samePeer) binding() []byte {
	if chain := p.certificates(); len(chain) > 0 {
		return claim.Binding(chain[0])
	}
	return nil
}

// Login exchanges a password for a session. at is what time it is here, for a gateway
// that does not know; nil: nothing that it should go by.
func (c *Client) Login(ctx context.Context, username, password string, at *time.Time) (apitype.Tokens, error) {
	return post[apitype.Tokens](ctx, c, "/api/auth/login", apitype.LoginRequest{Username: username, Password: password, Time: at})
}

// Refresh exchanges a refresh token, which is good once, for the next session.
func (c *Client) Refresh(ctx context.Context, refresh string) (apitype.Tokens, error) {
	return post[apitype.Tokens](ctx, c, "/api/auth/refresh", apitype.RefreshRequest{RefreshToken: refresh})
}

// post is a call that needs no login.
func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	var answer T
	err := c.call(ctx, request{method: http.MethodPost, path: path, body: body, anon: true}, &answer)
	return answer, err
}

// Logout ends the session of a refresh token.
func (c *Client) Logout(ctx context.Context, refresh string) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/api/auth/logout", body: apitype.RefreshRequest{RefreshToken: refresh}}, nil)
}
