package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/gateway/trust"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
	"halo.internal/model/bundle"
	"halo.internal/model/claim"
	"halo.internal/model/paths"
)

const (
	patience = 2 * time.Minute
	password = "correct horse battery"
)

// output collects what the gateway prints and logs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// eventually waits until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// given counts addresses of the loopback, so that each test has its own: by the time that
// a gateway listens, a port of 127.0.0.1 may be another test's.
var given atomic.Uint32

func freeAddress(t *testing.T) string {
	t.Helper()
	n := given.Add(1)
	l, err := net.Listen("tcp", fmt.Sprintf("127.1.%d.%d:0", n>>8&0xff, n&0xff))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs a gateway until the function returned is called or the test ends.
func start(t *testing.T, c Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the gateway ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("the gateway does not stop")
		}
	})
	t.Cleanup(stop)
	return stop
}

// client speaks to a gateway.
type client struct {
	t    *testing.T
	base string
	http http.Client
	tls  *x509.Certificate // leaf of the last connection
	jwt  string
}

func newClient(t *testing.T, base string) *client {
	c := &client{t: t, base: base}
	c.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error { // as before the claim: the proof is what counts
		c.tls = s.PeerCertificates[0]
		return nil
	}}}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// do makes a request and decodes the answer into out; the status is returned.
func (c *client) do(method, path string, in, out any) (int, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, body)
	if err != nil {
		return 0, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.jwt != "" {
		req.Header.Set("Authorization", "Bearer "+c.jwt)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode >= 400 {
		p := &apitype.Problem{}
		if err := json.Unmarshal(b, p); err != nil || p.Status == 0 {
			return resp.StatusCode, fmt.Errorf("%s: %s", resp.Status, b)
		}
		return resp.StatusCode, p
	}
	if out != nil {
		return resp.StatusCode, json.Unmarshal(b, out)
	}
	return resp.StatusCode, nil
}

func (c *client) must(method, path string, in, out any) {
	c.t.Helper()
	if _, err := c.do(method, path, in, out); err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// claim claims the gateway as haloctl does.
func (c *client) claim(code string) {
	c.t.Helper()
	nonce := claim.NewNonce()
	r := apitype.ClaimRequest{ClientNonce: base64.StdEncoding.EncodeToString(nonce)}
	var a apitype.ClaimAnswer
	c.must("POST", "/api/auth/claim", r, &a)
	decode := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			c.t.Fatal(err)
		}
		return b
	}
	key, err := claim.Derive(code, decode(a.Salt))
	if err != nil {
		c.t.Fatal(err)
	}
	e := claim.Exchange{ClientNonce: nonce, ServerNonce: decode(a.ServerNonce)}
	if c.tls != nil {
		e.Binding = claim.Binding(c.tls)
	}
	if !key.VerifyServer(e, decode(a.Proof)) {
		c.t.Fatal("the gateway does not prove that it knows the code over this connection")
	}
	r.ServerNonce, r.Username, r.Password = a.ServerNonce, "root", password
	proof, err := key.ClientProof(e, r.Username, r.Password)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Proof = base64.StdEncoding.EncodeToString(proof)
	var done apitype.ClaimAnswer
	c.must("POST", "/api/auth/claim", r, &done)
	c.jwt = done.Tokens.AccessToken
}

func (c *client) health() (health.Report, error) {
	var r health.Report
	resp, err := c.http.Get(c.base + "/health")
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

func (c *client) ready() {
	c.t.Helper()
	eventually(c.t, "the API answers", func() error {
		_, err := c.do("GET", "/capabilities", nil, nil)
		return err
	})
}

func printedCode(t *testing.T, console *output) string {
	t.Helper()
	_, code, ok := strings.Cut(console.String(), "Claim code of this gateway: ")
	if !ok {
		t.Fatalf("no claim code was printed: %q", console)
	}
	return strings.TrimSpace(code)
}

func TestAloneOnALaptop(t *testing.T) {
	t.Parallel()
	dir, plain, secure := t.TempDir(), freeAddress(t), freeAddress(t)
	console, log := &output{}, &output{}
	c := Laptop(dir, []string{plain}, console, slog.New(slog.NewTextHandler(log, nil)))
	c.TLS = []string{secure}
	stop := start(t, c)
	loop, outside := newClient(t, "http://"+plain), newClient(t, "https://"+secure)
	loop.ready()
	eventually(t, "the state is degraded for want of halo-mesh", func() error {
		r, err := loop.health()
		if err != nil || r.State != health.Degraded || r.Missing != "halo-mesh" {
			return fmt.Errorf("got %s, missing %q (%v)", r.State, r.Missing, err)
		}
		return nil
	})
	outside.ready()
	code := printedCode(t, console)
	outside.claim(code)
	var info apitype.SystemInfo
	outside.must("GET", "/v1/system/info", nil, &info)
	if info.Role != model.RoleGateway || info.Boot != 1 || info.CASHA256 == "" || info.Config.Bytes == 0 {
		t.Errorf("got %+v", info)
	}
	var nodes apitype.NodeList
	outside.must("GET", "/v1/nodes", nil, &nodes)
	if len(nodes.Items) != 1 || nodes.Items[0].ID != info.Node || nodes.Items[0].OverlayV4 != paths.OverlayGateway {
		t.Errorf("the gateway is not in its own registry: %+v", nodes.Items)
	}
	if status, _ := outside.do("GET", "/v1/mesh/status", nil, nil); status != http.StatusServiceUnavailable {
		t.Errorf("mesh status without a mesh: %d, want 503", status)
	}
	stop()

	console = &output{}
	c.Console = console
	start(t, c)
	loop = newClient(t, "http://"+plain)
	loop.ready()
	var tokens apitype.Tokens
	loop.must("POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: password}, &tokens)
	loop.jwt = tokens.AccessToken
	var again apitype.SystemInfo
	loop.must("GET", "/v1/system/info", nil, &again)
	if again.Node != info.Node || again.CASHA256 != info.CASHA256 || again.Boot != 2 {
		t.Errorf("after a restart: %+v, before: %+v", again, info)
	}
	if console.String() != "" {
		t.Errorf("a claimed gateway printed %q", console)
	}
	eventually(t, "claim and login are in the audit log", func() error {
		var a apitype.AuditList
		_, err := loop.do("GET", "/v1/audit", nil, &a)
		var actions []string
		for _, e := range a.Items {
			actions = append(actions, e.Action)
		}
		if !slices.Equal(actions, []string{"login", "claim"}) {
			err = errors.Join(err, fmt.Errorf("got %v", actions))
		}
		return err
	})
	for _, secret := range []string{password, code, tokens.RefreshToken, tokens.AccessToken} {
		if strings.Contains(log.String(), secret) {
			t.Error("the log has a secret in it")
		}
	}
}

// mesh is halo-mesh's socket as gateway-api sees it.
type mesh struct {
	mu       sync.Mutex
	announce *model.Announce
	peers    []model.AdmittedPeer
	code     string
	erased   bool
	heard    uint64
	leftOut  []string // as far as they are among the peers

	operators *model.Operators
	revoked   []string
	names     []model.BrainName
}

func (m *mesh) handler() http.Handler {
	mux := http.NewServeMux()
	put := func(route string, f func(*json.Decoder) error) {
		mux.HandleFunc("PUT "+route, func(w http.ResponseWriter, r *http.Request) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if err := f(json.NewDecoder(r.Body)); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
	put(local.RoutePeers, func(d *json.Decoder) error { m.peers = nil; return d.Decode(&m.peers) })
	put(local.RouteAnnounce, func(d *json.Decoder) error { m.announce = nil; return d.Decode(&m.announce) })
	put(local.RouteRevoked, func(d *json.Decoder) error { m.revoked = nil; return d.Decode(&m.revoked) })
	put(local.RouteOperators, func(d *json.Decoder) error { m.operators = nil; return d.Decode(&m.operators) })
	put(local.RouteNames, func(d *json.Decoder) error { m.names = nil; return d.Decode(&m.names) })
	put(local.RouteClaimCode, func(d *json.Decoder) error {
		var c model.ClaimCode
		err := d.Decode(&c)
		m.code = c.Code
		return err
	})
	mux.HandleFunc("DELETE "+local.RouteClaimCode, func(http.ResponseWriter, *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.code, m.erased = "", true
	})
	mux.HandleFunc("GET "+local.RouteStatus, func(w http.ResponseWriter, _ *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		s := model.MeshStatus{Network: "north-ridge", OverlayV4: "10.42.0.1", Clock: model.ClockGPS, Announcing: m.announce, HeardEpoch: m.heard, Named: m.names != nil}
		for _, p := range m.peers {
			if slices.Contains(m.leftOut, p.Node) {
				s.LeftOut = append(s.LeftOut, p.Node)
			}
			s.Overlay = append(s.Overlay, model.OverlayPeer{Node: p.Node, PublicKey: p.WireGuardKey, RxBytes: 7})
		}
		_ = json.NewEncoder(w).Encode(s) // the client is in the same test
	})
	mux.Handle("GET "+local.RouteHealth, health.New("halo-mesh"))
	return mux
}

// serve runs the socket until the function returned is called.
func (m *mesh) serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- local.Serve(ctx, socket, m.handler()) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// bundleOf is the bundle of a gateway with that key.
func bundleOf(t *testing.T, key identity.Key) []byte {
	t.Helper()
	b, err := bundle.Bundle{Version: bundle.Version, Network: "north-ridge", Role: model.RoleGateway, Country: "DE",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64(), Seed: base64.StdEncoding.EncodeToString(key.Seed())},
		Mesh:    bundle.Mesh{SSID: "ETHRX0001-8A", PSK: "a secret of the mesh", Routing: "BATMAN_IV"}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// identify writes what halo-mesh does before gateway-api can start: the identity of this
// start of the machine, and the bundle, without which a start waits for some seconds.
func identify(t *testing.T, c Config, s identity.State) {
	t.Helper()
	err := os.WriteFile(c.State.File(paths.BundleCopy), bundleOf(t, s.Key), 0o600)
	if err = errors.Join(err, atomicfile.Write(c.Identity, s.Marshal(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestOnABoard, where halo-mesh comes late and has no bundle.
func TestOnABoard(t *testing.T) {
	t.Parallel()
	dir, run, plain := t.TempDir(), t.TempDir(), freeAddress(t)
	sock := filepath.Join(run, "mesh.sock")
	c := Board(slog.New(slog.DiscardHandler))
	c.State, c.Identity, c.Socket, c.Mesh = paths.Dir(dir), filepath.Join(run, "identity.json"), filepath.Join(run, "gateway.sock"), sock
	c.Plain, c.TLS, c.Every, c.Poll = []string{plain}, nil, time.Millisecond, 200*time.Millisecond
	started := time.Now()
	start(t, c)
	api := newClient(t, "http://"+plain)
	eventually(t, "/health names what is missing", func() error {
		r, err := api.health()
		if err != nil || r.Missing != "halo-mesh" || r.State != health.Failed {
			return fmt.Errorf("got %s, missing %q (%v)", r.State, r.Missing, err)
		}
		return nil
	})
	t.Logf("it took %s to say so", time.Since(started))

	halomesh := &mesh{}
	stopMesh := halomesh.serve(t, sock)
	key := identity.New()
	if err := atomicfile.Write(c.Identity, (identity.State{Key: key, BootCounter: 9, BootID: "b"}).Marshal(), 0o600); err != nil {
		t.Fatal(err)
	}
	api.ready()
	var shown string
	eventually(t, "halo-mesh announces the API and shows the claim code", func() error {
		halomesh.mu.Lock()
		defer halomesh.mu.Unlock()
		if shown = halomesh.code; shown == "" || halomesh.announce == nil || halomesh.announce.APIPort != paths.APITLSPort || len(halomesh.announce.CASHA256) != 64 {
			return fmt.Errorf("code %q, announce %+v", shown, halomesh.announce)
		}
		return nil
	})
	api.claim(shown)
	eventually(t, "halo-mesh erases the code", func() error {
		halomesh.mu.Lock()
		defer halomesh.mu.Unlock()
		if halomesh.code != "" || !halomesh.erased {
			return fmt.Errorf("it still shows %q", halomesh.code)
		}
		return nil
	})
	eventually(t, "the state is ok", func() error {
		r, err := api.health()
		if err != nil || r.State != health.OK {
			return fmt.Errorf("got %s, missing %q: %s (%v)", r.State, r.Missing, r.Detail, err)
		}
		return nil
	})

	var cert apitype.OperatorCertificate
	if _, err := api.do("POST", "/api/auth/operator-certificates", apitype.CreateOperatorCertificate{Key: identity.New().Public().Base64()}, &cert); err != nil {
		t.Fatal(err)
	}
	told := func(want model.Operators) {
		t.Helper()
		eventually(t, "halo-mesh knows which certificates are over", func() error {
			halomesh.mu.Lock()
			defer halomesh.mu.Unlock()
			if !reflect.DeepEqual(halomesh.operators, &want) {
				return fmt.Errorf("got %+v, want %+v", halomesh.operators, want)
			}
			return nil
		})
	}
	told(model.Operators{Floor: 1})
	if _, err := api.do("DELETE", "/api/auth/operator-certificates/1", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := api.do("POST", "/v1/trust/node-codes/renew", nil, nil); err != nil {
		t.Fatal(err)
	}
	told(model.Operators{Floor: 2, Codes: 1})

	node := identity.New()
	member := api.join(key, node)
	hasPeer := func() error {
		halomesh.mu.Lock()
		defer halomesh.mu.Unlock()
		if len(halomesh.peers) != 1 || halomesh.peers[0].Node != node.ID() || halomesh.peers[0].OverlayV4 != member.OverlayV4 {
			return fmt.Errorf("peers %+v", halomesh.peers)
		}
		return nil
	}
	eventually(t, "halo-mesh gets the new peer", hasPeer)
	eventually(t, "the node's handshakes are in its details", func() error {
		var d apitype.NodeDetail
		_, err := api.do("GET", "/v1/nodes/"+node.ID(), nil, &d)
		if d.Overlay == nil || d.Overlay.RxBytes != 7 {
			err = errors.Join(err, fmt.Errorf("got %+v", d.Overlay))
		}
		return err
	})
	if _, err := api.do("POST", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := api.do("PUT", "/v1/brain/neurons/n01/components/sensor/parts/device/"+node.ID(), nil, nil); err != nil {
		t.Fatal(err)
	}
	hasName := func() error {
		halomesh.mu.Lock()
		defer halomesh.mu.Unlock()
		if want := (model.BrainName{Name: "brain-sensor-n01", Nodes: []string{node.ID()}}); len(halomesh.names) == 0 || !reflect.DeepEqual(halomesh.names[0], want) {
			return fmt.Errorf("names %+v", halomesh.names)
		}
		return nil
	}
	eventually(t, "halo-mesh gets the neuron's name", hasName)
	var own apitype.NeuronHealth
	for _, process := range []string{"gateway-api", "halo-mesh"} {
		if _, err := api.do("PUT", "/v1/brain/neurons/n01/components/memory/parts/process/"+process+"@"+key.ID(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := api.do("GET", "/v1/brain/neurons/n01/health", nil, &own); err != nil || own.Components[2].State != apitype.NeuronOK || own.Components[2].Live != 2 || own.Components[0].State == apitype.NeuronOK {
		t.Errorf("the gateway's own processes are well, and the node has not come: %+v, %v", own, err)
	}

	stopMesh()
	eventually(t, "the loss of halo-mesh is noticed", func() error {
		if r, err := api.health(); err != nil || r.Missing != "halo-mesh" {
			return fmt.Errorf("missing %q (%v)", r.Missing, err)
		}
		return nil
	})
	halomesh = &mesh{} // has forgotten everything
	halomesh.serve(t, sock)
	eventually(t, "a restarted halo-mesh is told everything again", func() error {
		halomesh.mu.Lock()
		told := halomesh.announce != nil && halomesh.erased
		halomesh.mu.Unlock()
		if !told {
			return errors.New("not yet")
		}
		return errors.Join(hasPeer(), hasName())
	})
	if r, err := local.NewMesh(c.Socket).Health(t.Context()); err != nil || r.Name != "gateway-api" {
		t.Errorf("over the Unix socket: %+v, %v", r, err)
	}
}

// TestEvidenceOfAHigherEpoch: a fresh card raises its epoch above it by itself,
// and has it announced and in memberships; once it has admitted a node, a
// person decides.
func TestEvidenceOfAHigherEpoch(t *testing.T) {
	t.Parallel()
	dir, run, plain := t.TempDir(), t.TempDir(), freeAddress(t)
	sock := filepath.Join(run, "mesh.sock")
	c := Board(slog.New(slog.DiscardHandler))
	c.State, c.Identity, c.Socket, c.Mesh = paths.Dir(dir), filepath.Join(run, "identity.json"), "", sock
	c.Plain, c.TLS, c.Every, c.Poll = []string{plain}, nil, time.Millisecond, 50*time.Millisecond
	halomesh, key := &mesh{}, identity.New()
	halomesh.serve(t, sock)
	identify(t, c, identity.State{Key: key, BootCounter: 1, BootID: "b"})
	stop := start(t, c)
	api := newClient(t, "http://"+plain)
	api.ready()
	announced := func(want func(uint64) bool) (epoch uint64) {
		t.Helper()
		eventually(t, "the announced epoch", func() error {
			halomesh.mu.Lock()
			defer halomesh.mu.Unlock()
			if halomesh.announce == nil || !want(halomesh.announce.Epoch) {
				return fmt.Errorf("got %+v", halomesh.announce)
			}
			epoch = halomesh.announce.Epoch
			return nil
		})
		return epoch
	}
	hear := func(epoch uint64) {
		halomesh.mu.Lock()
		defer halomesh.mu.Unlock()
		halomesh.heard = epoch
	}
	first := announced(func(e uint64) bool { return e > 0 })
	hear(first + 5)
	announced(func(e uint64) bool { return e == first+6 })
	halomesh.mu.Lock()
	shown := halomesh.code
	halomesh.mu.Unlock()
	api.claim(shown)
	node := identity.New()
	if m := api.join(key, node); m.Epoch != first+6 {
		t.Errorf("the membership has epoch %d, want %d", m.Epoch, first+6)
	}
	// The network's mesh profile does not count it, until an admin does.
	members := func(leftOut []string, peers, revoked int) {
		t.Helper()
		halomesh.mu.Lock()
		halomesh.leftOut = leftOut
		halomesh.mu.Unlock()
		eventually(t, "halo-mesh is told who is a member", func() error {
			halomesh.mu.Lock()
			defer halomesh.mu.Unlock()
			if len(halomesh.peers) != peers || len(halomesh.revoked) != revoked {
				return fmt.Errorf("got %d peers, revoked %v; want %d, %d", len(halomesh.peers), halomesh.revoked, peers, revoked)
			}
			return nil
		})
	}
	members(nil, 1, 0)
	members([]string{node.ID()}, 0, 1)
	halomesh.mu.Lock()
	halomesh.leftOut = nil
	halomesh.mu.Unlock()
	api.must("POST", "/v1/admin/registrations/"+node.ID()+"/approve", nil, nil)
	members(nil, 1, 0)

	hear(first + 20)
	eventually(t, "the gateway asks for a person", func() error {
		var list apitype.EventList
		_, err := api.do("GET", "/v1/events?kind=gateway.epoch-behind", nil, &list)
		if err == nil && (len(list.Items) != 1 || list.Items[0].Fields["heard"] != fmt.Sprint(first+20)) {
			err = fmt.Errorf("got %+v", list.Items)
		}
		return err
	})
	eventually(t, "/health says that it is refused, and what to do", func() error {
		r, err := api.health()
		if r.State != health.Degraded || r.Missing != "epoch" || !strings.Contains(r.Detail, "haloctl network epoch raise") {
			err = errors.Join(err, fmt.Errorf("%s, missing %q: %s", r.State, r.Missing, r.Detail))
		}
		return err
	})
	var e apitype.NetworkEpoch
	api.must("GET", "/v1/network/epoch", nil, &e)
	if e.Epoch != first+6 || e.Heard != first+20 {
		t.Errorf("got %+v, want the epoch unchanged", e)
	}
	api.must("POST", "/v1/network/epoch/raise", nil, &e)
	if r, err := api.health(); err != nil || r.State != health.OK {
		t.Errorf("health after the raise: %s, missing %q: %s (%v)", r.State, r.Missing, r.Detail, err)
	}
	announced(func(e uint64) bool { return e == first+21 })
	stop()
	stop = start(t, c)
	api.ready()
	announced(func(e uint64) bool { return e == first+21 })

	// Nodes would take a gateway with another CA for another card of it.
	stop()
	if err := trust.SetAside(c.State.File(paths.GatewayDir)); err != nil {
		t.Fatal(err)
	}
	hear(0)
	stop = start(t, c)
	api = newClient(t, "http://"+plain)
	api.ready()
	announced(func(e uint64) bool { return e == first+22 })
	stop()
	start(t, c)
	newClient(t, "http://"+plain).ready()
	announced(func(e uint64) bool { return e == first+22 })
}

// join joins a node over HTTP with a token of the network.
func (c *client) join(network, node identity.Key) model.Membership {
	c.t.Helper()
	m, _, err := c.tryJoin(network, node)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *client) tryJoin(network, node identity.Key) (m model.Membership, status int, err error) {
	c.t.Helper()
	wg := node.WireGuardPublic()
	proof, err := identity.ProvePossession(network.Public(), node.Public(), node.WireGuard())
	if err != nil {
		c.t.Fatal(err)
	}
	r := model.JoinRequest{Network: network.Public().Base64(), IdentityKey: node.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
		Possession: base64.StdEncoding.EncodeToString(proof), Token: identity.NewJoinToken(1, time.Now().Add(time.Hour)).Text(network)}
	status, err = c.do("POST", "/v1/nodes/join", r, nil)
	p, ok := errors.AsType[*apitype.Problem](err)
	if !ok || status != http.StatusUnauthorized || p.Type != apitype.ProblemJoinNonce {
		c.t.Fatalf("first step: %d, %v", status, err)
	}
	r.Nonce = p.Nonce
	r.Signature = base64.StdEncoding.EncodeToString(node.Sign(model.JoinContext, r.SignedBytes()))
	status, err = c.do("POST", "/v1/nodes/join", r, &m)
	return m, status, err
}

// TestACardChangesNetworks: a new network's gateway starts anew on a used card,
// and the old one is found again when the card goes back.
func TestACardChangesNetworks(t *testing.T) {
	t.Parallel()
	dir, plain := t.TempDir(), freeAddress(t)
	run := func() (*client, *output, func()) {
		console := &output{}
		stop := start(t, Laptop(dir, []string{plain}, console, slog.New(slog.DiscardHandler)))
		c := newClient(t, "http://"+plain)
		c.ready()
		return c, console, stop
	}
	api, console, stop := run()
	api.claim(printedCode(t, console))
	var first apitype.SystemInfo
	api.must("GET", "/v1/system/info", nil, &first)
	stop()

	path := paths.Dir(dir).File(paths.Identity)
	old, err := identity.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := (identity.State{Key: identity.New(), BootCounter: 1}).Save(path, nil); err != nil {
		t.Fatal(err)
	}
	api, console, stop = run()
	api.claim(printedCode(t, console))
	var second apitype.SystemInfo
	api.must("GET", "/v1/system/info", nil, &second)
	if second.Node == first.Node || second.CASHA256 == first.CASHA256 {
		t.Errorf("the new network has node %s and CA %s of the old one", second.Node, second.CASHA256)
	}
	var l apitype.EventList
	api.must("GET", "/v1/events?kind=gateway.set-aside", nil, &l)
	if len(l.Items) != 1 || l.Items[0].Fields["gateway"] != first.Node {
		t.Errorf("events: %+v, want one that names %s", l.Items, first.Node)
	}
	stop()

	if err := old.Save(path, nil); err != nil {
		t.Fatal(err)
	}
	api, _, _ = run()
	var tokens apitype.Tokens
	api.must("POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: password}, &tokens)
	api.jwt = tokens.AccessToken
	var third apitype.SystemInfo
	api.must("GET", "/v1/system/info", nil, &third)
	if third.Node != first.Node || third.CASHA256 != first.CASHA256 {
		t.Errorf("back in the first network: got %+v, want %+v", third, first)
	}
}

func TestDamagedConfigIsLoudAndRaisesTheEpoch(t *testing.T) {
	t.Parallel()
	dir, plain := t.TempDir(), freeAddress(t)
	console := &output{}
	c := Laptop(dir, []string{plain}, console, slog.New(slog.DiscardHandler))
	stop := start(t, c)
	api := newClient(t, "http://"+plain)
	api.ready()
	api.claim(printedCode(t, console))
	epoch := func() uint64 {
		t.Helper()
		var n apitype.Network
		api.must("GET", "/v1/network", nil, &n)
		return n.Epoch
	}
	first := epoch()
	stop()
	db := c.State.File(paths.ConfigDB)
	good, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(db+".copy-1", good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(db, 5000); err != nil {
		t.Fatal(err)
	}
	stop = start(t, c)
	api.ready()
	login := func() {
		t.Helper()
		if status, _ := api.do("GET", "/v1/network", nil, nil); status != http.StatusUnauthorized {
			t.Errorf("a login of before the restore gets %d, want 401", status)
		}
		var tokens apitype.Tokens
		api.must("POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: password}, &tokens)
		api.jwt = tokens.AccessToken
	}
	login()
	eventually(t, "the restored database has the admin, and an event tells of it", func() error {
		var l apitype.EventList
		_, err := api.do("GET", "/v1/events?kind=store.&severity=error", nil, &l)
		if len(l.Items) != 1 || l.Items[0].Kind != "store.config.restored" || !strings.Contains(l.Items[0].Message, "log in again") {
			err = errors.Join(err, fmt.Errorf("got %+v", l.Items))
		}
		return err
	})
	if got := epoch(); got != first+1 {
		t.Errorf("restored from a copy: the epoch is %d, want %d", got, first+1)
	}
	stop()

	// The power is cut after the copy took its place and before that was drawn
	// from it: the database is whole, and knows the epoch that was announced.
	if err := os.Truncate(db, 5000); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.State.File(paths.Epoch), []byte(fmt.Sprint(first)), 0o600); err != nil { // as the copy has it
		t.Fatal(err)
	}
	cut, repair, err := store.OpenConfig(t.Context(), db)
	if err == nil {
		err = cut.Close()
	}
	if err != nil || repair.Restored == "" {
		t.Fatalf("got %+v, %v; want a restored database", repair, err)
	}
	stop = start(t, c)
	api.ready()
	login()
	if got := epoch(); got != first+1 {
		t.Errorf("restored before a power cut: the epoch is %d, want %d", got, first+1)
	}
	stop()

	// Without a copy nothing in the new database tells of the epochs before.
	if err := errors.Join(os.Truncate(db, 5000), os.Remove(db+".copy-1")); err != nil {
		t.Fatal(err)
	}
	console = &output{}
	c.Console = console
	start(t, c)
	api.ready()
	api.claim(printedCode(t, console))
	if got := epoch(); got != first+2 {
		t.Errorf("made anew: the epoch is %d, want %d", got, first+2)
	}
}

// A token is revoked and the power fails before the copies are made anew.
func TestARestartFreesTheCopiesOfWhatWasRevoked(t *testing.T) {
	t.Parallel()
	dir, plain := t.TempDir(), freeAddress(t)
	console := &output{}
	c := Laptop(dir, []string{plain}, console, slog.New(slog.DiscardHandler))
	stop := start(t, c)
	api := newClient(t, "http://"+plain)
	api.ready()
	api.claim(printedCode(t, console))
	var token apitype.APIToken
	api.must("POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "grafana-of-eve", Scopes: []string{apitype.ScopeNodesRead}}, &token)
	stop()
	path := c.State.File(paths.ConfigDB)
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(db.Copy(t.Context()), db.Copy(t.Context()), db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), `DELETE FROM api_tokens WHERE id = ?`, token.ID)
		return err
	}), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	start(t, c)
	eventually(t, "no copy has the token", func() error {
		for _, suffix := range []string{".copy-1", ".copy-2"} {
			b, err := os.ReadFile(path + suffix)
			if err != nil {
				return err
			}
			if bytes.Contains(b, []byte(token.Name)) {
				return fmt.Errorf("%s has it", suffix)
			}
		}
		return nil
	})
}

// A power cut right after an adoption: the registry has it, the clients are with the old
// node still.
func TestARestartEndsAnAdoption(t *testing.T) {
	t.Parallel()
	dir, plain := t.TempDir(), freeAddress(t)
	console := &output{}
	c := Laptop(dir, []string{plain}, console, slog.New(slog.DiscardHandler))
	stop := start(t, c)
	api := newClient(t, "http://"+plain)
	api.ready()
	api.claim(printedCode(t, console))
	var nodes apitype.NodeList
	api.must("GET", "/v1/nodes", nil, &nodes)
	if len(nodes.Items) != 1 {
		t.Fatalf("nodes: %+v", nodes)
	}
	node, old := nodes.Items[0].ID, identity.New().Public().ID()
	stop()
	db, _, err := store.OpenConfig(t.Context(), c.State.File(paths.ConfigDB))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(db.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.Context(), `UPDATE nodes SET replaces = ? WHERE id = ?`, old, node); err != nil {
			return err
		}
		_, err := tx.ExecContext(t.Context(), `INSERT INTO endpoints (id, mac, name, note, node, body, first_seen, last_seen) VALUES ('e-a', '02:00:00:00:00:02', '', '', ?, '{}', 1, 1)`, old)
		return err
	}), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		stop = start(t, c)
		api.ready()
		var e apitype.EndpointDetail
		if api.must("GET", "/v1/endpoints/e-a", nil, &e); e.Node != node || len(e.Places) != 1 {
			t.Errorf("got %+v, want it behind %s, where it came once", e, node)
		}
		stop()
	}
}

// What becomes of the databases is in the log of events, also where that is in
// the one that cannot be written.
func TestDatabasesThatFailAreInTheEvents(t *testing.T) {
	t.Parallel()
	dir, plain := t.TempDir(), freeAddress(t)
	console := &output{}
	c := Laptop(dir, []string{plain}, console, slog.New(slog.DiscardHandler))
	stop := start(t, c)
	api := newClient(t, "http://"+plain)
	api.ready()
	api.claim(printedCode(t, console))
	expect := func(want ...string) {
		t.Helper()
		eventually(t, "events", func() error {
			var l apitype.EventList
			_, err := api.do("GET", "/v1/events?kind=store.", nil, &l)
			var got []string
			for _, e := range l.Items {
				got = append(got, e.Kind)
			}
			slices.Reverse(got)
			if !slices.Equal(got, want) {
				err = errors.Join(err, fmt.Errorf("got %v, want %v", got, want))
			}
			return err
		})
	}
	expect()

	other, err := sql.Open("sqlite", "file:"+c.State.File(paths.ConfigDB)+"?_txlock=immediate&_pragma=busy_timeout(30000)")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := api.do("POST", "/v1/admin/join-tokens", apitype.CreateJoinToken{Uses: 1, ExpiresS: 3600}, nil); err == nil {
		t.Errorf("a join token was made in a locked database: %d", status)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	expect("store.config.unavailable", "store.config.available")

	stop()
	if err := os.Truncate(c.State.File(paths.SeriesDB), 0); err != nil {
		t.Fatal(err)
	}
	start(t, c)
	api.ready()
	expect("store.config.unavailable", "store.config.available", "store.telemetry.lost")
}

func TestWhatPowerCutsLeftIsRemoved(t *testing.T) {
	t.Parallel()
	dir, plain := t.TempDir(), freeAddress(t)
	torn := []string{filepath.Join(dir, ".tmp-1"), filepath.Join(dir, paths.GatewayDir, ".tmp-2"),
		filepath.Join(dir, paths.ConfigDB+".copy-new"), filepath.Join(dir, paths.ConfigDB+".copy-new-journal")}
	for _, p := range torn {
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte("key"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, Laptop(dir, []string{plain}, io.Discard, slog.New(slog.DiscardHandler)))
	newClient(t, "http://"+plain).ready()
	for _, p := range torn {
		if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", p, err)
		}
	}
}

func TestPermThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "not-a-directory")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := freeAddress(t)
	start(t, Laptop(filepath.Join(file, "data"), []string{plain}, io.Discard, slog.New(slog.DiscardHandler)))
	api := newClient(t, "http://"+plain)
	eventually(t, "/health says so", func() error {
		r, err := api.health()
		if err != nil || r.Missing != "perm" || r.State != health.Failed {
			return fmt.Errorf("got %s, missing %q (%v)", r.State, r.Missing, err)
		}
		return nil
	})
}

// What a request tells of that is answered while the gateway stops is in the
// database afterwards.
func TestTheLastRequestsEventsAreKept(t *testing.T) {
	// Not in parallel: a gateway that stops gives a request seconds to end.
	plain := freeAddress(t)
	c := Laptop(t.TempDir(), []string{plain}, io.Discard, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c) }()
	newClient(t, "http://"+plain).ready()
	conn, err := net.Dial("tcp", plain)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"username":"eve","password":"a password of nobody"}`
	fmt.Fprintf(conn, "POST /api/auth/login HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", plain, len(body))
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("the request is not being answered: %q, %v", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	eventually(t, "the gateway stops to listen", func() error {
		other, err := net.Dial("tcp", plain)
		if err != nil {
			return nil
		}
		return errors.Join(errors.New("it listens still"), other.Close())
	})
	if _, err := io.WriteString(conn, body); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %s, want a refusal of the password", answer.Status)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	db, _, err := store.OpenConfig(t.Context(), c.State.File(paths.ConfigDB))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM events WHERE kind = 'auth.login.failed'`).Scan(&n); err != nil || n != 1 {
		t.Errorf("the database has %d events of the request, %v; want 1", n, err)
	}
}

// Each stage ends after the one before, also when something in a later one fails.
func TestStagesEndInTurn(t *testing.T) {
	broken := errors.New("broken")
	for _, want := range []error{nil, broken} {
		var mu sync.Mutex
		var ended []string
		until := func(name string, err error) func(context.Context) error {
			return func(ctx context.Context) error {
				if err == nil {
					<-ctx.Done()
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					ended = append(ended, name)
				}
				return err
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		last := stage{until("log", nil)}
		if want == nil {
			cancel()
		} else {
			last = append(last, until("", want))
		}
		if err := inStages(ctx, stage{until("listeners", nil)}, stage{until("nodes", nil)}, last); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		cancel()
		if !slices.Equal(ended, []string{"listeners", "nodes", "log"}) {
			t.Errorf("ended %v", ended)
		}
	}
}
