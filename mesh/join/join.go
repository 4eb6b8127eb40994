// Package join makes a node a member of its network: it proves to the gateway,
// whose announcement it has verified, that it holds the key of its identity,
// and brings back the membership. It says at any time where that stands.
package join

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const (
	route          = "/v1/nodes/join"
	requestTimeout = 20 * time.Second // a slow link, a TLS handshake, a busy board
	maxAnswer      = 64 << 10
	maxReason      = 300
)

// Gateway is where and what to ask, as the gateway announced it.
type Gateway struct {
	Network identity.PublicKey
	Addr    netip.AddrPort
	CA      [sha256.Size]byte
}

// RefusedError is the gateway's considered no.
type RefusedError struct {
	Type   string // problem type
	Reason string // for people
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("gateway refused: %s (%s)", e.Reason, e.Type)
}

// ErrPending says that an admin has to approve the node.
var ErrPending = errors.New("an admin has to approve this node")

// pendingError is ErrPending in the gateway's words, which tell why.
type pendingError struct{ reason string }

func (e *pendingError) Error() string { return e.reason }

func (e *pendingError) Is(target error) bool { return target == ErrPending }

// Request asks the gateway once: for a nonce, then signed over it. The
// request's Nonce and Signature are filled in; its Serial goes with the second post, to
// gateways that say that they take it, as older ones refuse members that they do not
// know. It returns ErrPending (or one
// that is it), a *RefusedError, or another error when the gateway was not reached.
func Request(ctx context.Context, g Gateway, key identity.Key, r model.JoinRequest) (model.Membership, error) {
	transport := &http.Transport{TLSClientConfig: tlsConfig(g.CA, g.Addr.Addr()), MaxIdleConns: 1}
	defer transport.CloseIdleConnections()
	c := client{http: http.Client{Transport: transport, Timeout: requestTimeout, CheckRedirect: noRedirect}, url: "https://" + g.Addr.String() + route}

	serial := r.Serial
	r.Nonce, r.Signature, r.Serial = "", "", ""
	_, problem, err := c.post(ctx, r)
	if err != nil {
		return model.Membership{}, err
	}
	if problem == nil || kind(problem) != apitype.ProblemJoinNonce || problem.Nonce == "" {
		return model.Membership{}, outcome(problem, "a nonce")
	}
	r.Nonce = problem.Nonce
	if slices.Contains(problem.Takes, apitype.TakesSerial) {
		r.Serial = serial
	}
	r.Signature = base64.StdEncoding.EncodeToString(key.Sign(model.JoinContext, r.SignedBytes()))
	m, problem, err := c.post(ctx, r)
	if err != nil {
		return model.Membership{}, err
	}
	if problem != nil {
		return model.Membership{}, outcome(problem, "a membership")
	}
	return m, Check(m, g.Network, key.Public())
}

// outcome turns a problem into what it means; nil is an answer out of turn.
func outcome(p *apitype.Problem, expected string) error {
	switch {
	case p == nil:
		return fmt.Errorf("expected %s, got a membership without asking for a proof", expected)
	case kind(p) == apitype.ProblemJoinPending && p.Detail != "":
		return &pendingError{clip(p.Detail)}
	case kind(p) == apitype.ProblemJoinPending:
		return ErrPending
	case p.Status >= 500 || p.Status == http.StatusTooManyRequests || kind(p) == apitype.ProblemJoinNonce:
		return fmt.Errorf("expected %s, got problem %q: %s", expected, clip(p.Type), clip(p.Detail))
	}
	reason := p.Detail
	if reason == "" {
		reason = p.Title
	}
	return &RefusedError{Type: clip(kind(p)), Reason: clip(reason)}
}

// kind is the last part of a problem's type URI.
func kind(p *apitype.Problem) string { return path.Base(strings.ReplaceAll(p.Type, ":", "/")) }

// clip keeps a text of the peer's from filling logs and status.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

type client struct {
	http http.Client
	url  string
}

func (c *client) post(ctx context.Context, r model.JoinRequest) (m model.Membership, p *apitype.Problem, err error) {
	body, err := json.Marshal(r)
	if err != nil {
		return m, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return m, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return m, nil, fmt.Errorf("join: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return m, nil, fmt.Errorf("join: %w", err)
	}
	if len(answer) > maxAnswer {
		return m, nil, fmt.Errorf("join: expected an answer of at most %d octets", maxAnswer)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusCreated {
		if err := json.Unmarshal(answer, &m); err != nil {
			return m, nil, fmt.Errorf("join: expected a membership: %w", err)
		}
		return m, nil, nil
	}
	p = &apitype.Problem{}
	if err := json.Unmarshal(answer, p); err != nil {
		return m, nil, fmt.Errorf("join: expected a problem with status %s: %w", resp.Status, err)
	}
	p.Status = resp.StatusCode
	return m, p, nil
}
