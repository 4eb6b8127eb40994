// Package load plays nodes that send telemetry to a real gateway-api, over the real
// protocol: they join it, hold the stream as halo-agent does, send batches and note what was
// acknowledged, and when. Each speaks from its own overlay address, which the machine has to
// have: see Overlay and Apart.
//
// Run plays a whole network for a while: nodes with a backlog, readings and reports of who is
// around, an admin who looks at it, and deaths of gateway-api, if they are wanted. It measures
// what that takes, and looks in the end whether all that was acknowledged is there.
package load

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

const (
	timeout   = 30 * time.Second
	maxAnswer = 64 << 10
)

// Network is a gateway and the key of its network, with which tokens are made.
type Network struct {
	Key identity.Key
	URL string // of its plain HTTP on the overlay
}

// Node is a member.
type Node struct {
	Name  string
	Addr  netip.Addr // in the overlay
	Boot  uint64
	Every time.Duration // between sendings, as it says in its hello; 0: a minute
	key   identity.Key
	of    Network
}

// ID is the node's canonical ID.
func (n *Node) ID() string { return n.key.ID() }

// Gateway is the gateway itself, as its own halo-agent speaks for it.
func (w Network) Gateway() *Node {
	return &Node{Name: "gateway", Addr: paths.OverlayGateway, Boot: 1, key: w.Key, of: w}
}

// Join makes so many members, whose names begin so.
func (w Network) Join(ctx context.Context, prefix string, count int) ([]*Node, error) {
	client := &http.Client{Timeout: timeout}
	defer client.CloseIdleConnections()
	token := identity.NewJoinToken(uint32(count), time.Now().Add(time.Hour)).Text(w.Key)
	nodes := make([]*Node, count)
	for i := range nodes {
		n := &Node{Name: fmt.Sprintf("%s%03d", prefix, i+1), Boot: 1, key: identity.New(), of: w}
		wg := n.key.WireGuardPublic()
		proof, err := identity.ProvePossession(w.Key.Public(), n.key.Public(), n.key.WireGuard())
		if err != nil {
			return nil, err
		}
		r := model.JoinRequest{Network: w.Key.Public().Base64(), IdentityKey: n.key.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
			Possession: base64.StdEncoding.EncodeToString(proof), Token: token, Name: n.Name, Board: "played", Boot: n.Boot}
		_, problem, err := w.join(ctx, client, r)
		if err != nil {
			return nil, err
		}
		if problem == nil || problem.Nonce == "" {
			return nil, fmt.Errorf("join of %s: expected a nonce, got %v", n.Name, problem)
		}
		r.Nonce = problem.Nonce
		r.Signature = base64.StdEncoding.EncodeToString(n.key.Sign(model.JoinContext, r.SignedBytes()))
		m, problem, err := w.join(ctx, client, r)
		if err != nil {
			return nil, err
		}
		if problem != nil {
			return nil, fmt.Errorf("join of %s: %w", n.Name, problem)
		}
		n.Addr, nodes[i] = m.OverlayV4, n
	}
	return nodes, nil
}

func (w Network) join(ctx context.Context, client *http.Client, r model.JoinRequest) (m model.Membership, problem *apitype.Problem, err error) {
	body, err := json.Marshal(r)
	if err != nil {
		return m, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/v1/nodes/join", bytes.NewReader(body))
	if err != nil {
		return m, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return m, nil, fmt.Errorf("join: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return m, nil, fmt.Errorf("join: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return m, nil, json.Unmarshal(answer, &m)
	}
	problem = &apitype.Problem{}
	if err := json.Unmarshal(answer, problem); err != nil {
		return m, nil, fmt.Errorf("join: expected a problem, got %s: %w", resp.Status, err)
	}
	return m, problem, nil
}
