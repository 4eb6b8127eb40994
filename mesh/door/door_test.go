package door

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/identity/operator"
	"halo.internal/local"
	"halo.internal/mesh/listen"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

const patience = 2 * time.Minute

var issued = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

// house is a door, what is behind it, and what it has told.
type house struct {
	*Door
	network, node identity.Key

	mu       sync.Mutex // guards what follows
	standing operator.Standing
	events   []model.Event
	asked    []string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{network: identity.New(), node: identity.New(), standing: operator.Standing{Epoch: 2, Now: issued, Sure: true}}
	d, err := New(Config{
		Key: h.node, Network: h.network.Public(), Log: slog.New(slog.DiscardHandler),
		Standing: func() operator.Standing {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.standing
		},
		Event: func(kind string, s model.Severity, message string, fields ...string) {
			e := model.Event{Kind: kind, Severity: s, Message: message, Fields: map[string]string{}}
			for i := 0; i+1 < len(fields); i += 2 {
				e.Fields[fields[i]] = fields[i+1]
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, e)
		},
		Routes: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			h.mu.Lock()
			h.asked = append(h.asked, fmt.Sprintf("%s %s %s %v", r.Method, r.URL.Path, b, err))
			h.mu.Unlock()
			fmt.Fprint(w, "inside")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Door = d
	return h
}

func (h *house) kinds() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, e := range h.events {
		out = append(out, e.Kind)
	}
	return out
}

// person is an operator with a key and a certificate.
type person struct {
	key  identity.Key
	cert string
}

func (h *house) admit(t *testing.T, role string, change func(*operator.Certificate)) person {
	t.Helper()
	p := person{key: identity.New()}
	c := operator.Certificate{Serial: 7, Epoch: 2, User: "anna", Role: role, Key: p.key.Public(), Issued: issued, Expires: issued.Add(operator.Validity)}
	if change != nil {
		change(&c)
	}
	signed, err := operator.Sign(h.network, c)
	if err != nil {
		t.Fatal(err)
	}
	p.cert = operator.Encode(signed)
	return p
}

// client of a person; wants is the node that is expected.
func (p person) client(t *testing.T, wants string, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	t.Helper()
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			key, err := operator.PeerKey(s)
			if err == nil && key.ID() != wants {
				err = fmt.Errorf("it is %s", key.ID())
			}
			return err
		},
	}}}
	if p.key != (identity.Key{}) {
		cert, err := operator.TLSCertificate(p.key.Seed(), "x")
		if err != nil {
			t.Fatal(err)
		}
		c.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{cert}
	}
	return c
}

// open serves the door on the loopback, without its listener.
func (h *house) open(t *testing.T) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = h.tls
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

func (p person) ask(t *testing.T, c *http.Client, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if p.cert != "" {
		req.Header.Set(operator.Header, p.cert)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func TestWhoComesIn(t *testing.T) {
	h := newHouse(t)
	url, id := h.open(t), h.node.ID()
	anna := h.admit(t, apitype.RoleOperator, nil)
	thief := person{key: identity.New(), cert: anna.cert}
	stranger := newHouse(t).admit(t, apitype.RoleAdmin, nil)
	for _, tc := range []struct {
		name string
		who  person
		code int
		says string
	}{
		{"an operator", anna, 200, "inside"},
		{"nobody", person{}, 401, "expected an operator's key in the TLS handshake"},
		{"a key alone", person{key: anna.key}, 401, "expected an operator certificate in the header Halo-Operator"},
		{"a certificate alone", person{cert: anna.cert}, 401, "expected an operator's key"},
		{"another's certificate", thief, 401, "is of another key than the one of this connection"},
		{"of another network", stranger, 401, "signature does not verify"},
		{"no base64", person{anna.key, "!"}, 401, "malformed operator certificate"},
		{"far too long", person{anna.key, strings.Repeat("A", 4000)}, 401, "expected at most"},
	} {
		h.slow.Succeed("127.0.0.1") // each row for itself
		code, says := tc.who.ask(t, tc.who.client(t, id, nil), "GET", url+local.RouteStatus, "")
		if code != tc.code || !strings.Contains(says, tc.says) {
			t.Errorf("%s: got %d %q, want %d …%s…", tc.name, code, says, tc.code, tc.says)
		}
	}
	if got := strings.Join(h.asked, "\n"); got != "GET /v1/status  <nil>" {
		t.Errorf("what came through:\n%s", got)
	}
	for _, e := range h.events {
		if strings.Contains(fmt.Sprint(e), anna.cert) {
			t.Errorf("an event shows a certificate: %+v", e)
		}
	}
}

// TestARevokedOperatorIsOut at the next request of the same connection.
func TestARevokedOperatorIsOut(t *testing.T) {
	h := newHouse(t)
	url := h.open(t)
	anna := h.admit(t, apitype.RoleAdmin, nil)
	c := anna.client(t, h.node.ID(), nil)
	c.Transport.(*http.Transport).DisableKeepAlives = false
	if code, says := anna.ask(t, c, "GET", url+local.RouteStatus, ""); code != 200 {
		t.Fatal(code, says)
	}
	h.mu.Lock()
	h.standing.ListEpoch, h.standing.Withdrawn = 2, model.Operators{Revoked: []uint64{7}}
	h.mu.Unlock()
	if code, says := anna.ask(t, c, "GET", url+local.RouteStatus, ""); code != 401 || !strings.Contains(says, "revoked: number 7 of anna") {
		t.Errorf("got %d %q", code, says)
	}
}

// TestAnotherNodeInItsPlace is found out before anything is asked.
func TestAnotherNodeInItsPlace(t *testing.T) {
	h := newHouse(t)
	url := h.open(t)
	anna := h.admit(t, apitype.RoleAdmin, nil)
	if _, err := anna.client(t, newHouse(t).node.ID(), nil).Get(url + local.RouteStatus); err == nil || !strings.Contains(err.Error(), "it is "+h.node.ID()) {
		t.Errorf("got %v", err)
	}
}

// TestRolesAndRoutes: what the door leads to, and for whom. Each route of the
// socket is decided here.
func TestRolesAndRoutes(t *testing.T) {
	h := newHouse(t)
	url := h.open(t)
	for _, r := range Routes {
		method, path, _ := strings.Cut(r.Pattern, " ")
		for _, role := range []string{apitype.RoleViewer, apitype.RoleOperator, apitype.RoleAdmin} {
			p := h.admit(t, role, nil)
			want := 403
			if (operator.Certificate{Role: role}).May(r.Role) {
				want = 200
			}
			if code, says := p.ask(t, p.client(t, h.node.ID(), nil), method, url+path, ""); code != want {
				t.Errorf("%s for %s: got %d %q, want %d", r.Pattern, role, code, says, want)
			}
		}
	}
	p := h.admit(t, apitype.RoleAdmin, nil)
	before := len(h.asked)
	for _, no := range []string{
		"PUT " + local.RoutePeers, "PUT " + local.RouteAnnounce, "PUT " + local.RouteOperators, "PUT " + local.RouteNames, "PUT " + local.RouteRevoked, "PUT " + local.RouteProfile, "GET " + local.RouteMeshSecret, "GET " + local.RouteBackup, "PUT " + local.RouteBackup, "PUT " + local.RouteTime, "PUT " + local.RouteGPSTime, "PUT " + local.RouteBatteryTime, "PUT " + local.RouteClaimCode, "DELETE " + local.RouteClaimCode,
		"POST " + local.RouteCode, "POST " + local.RouteStatus, "DELETE " + local.RouteStatus, "GET /", "GET /v1/status/", "GET /v1/../v1/operators", "GET /v1//status",
	} {
		method, path, _ := strings.Cut(no, " ")
		c := p.client(t, h.node.ID(), nil)
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		if code, says := p.ask(t, c, method, url+path, "{}"); code/100 != 4 && code/100 != 3 {
			t.Errorf("%s: got %d %q", no, code, says)
		}
	}
	if len(h.asked) != before {
		t.Errorf("came through: %v", h.asked[before:])
	}
}

func TestBodies(t *testing.T) {
	h := newHouse(t)
	url := h.open(t)
	p := h.admit(t, apitype.RoleOperator, nil)
	c := p.client(t, h.node.ID(), nil)
	if code, says := p.ask(t, c, "POST", url+local.RouteScan, `{"radio":"phy0"}`); code != 200 || h.asked[0] != `POST /v1/radios/scan {"radio":"phy0"} <nil>` {
		t.Errorf("got %d %q, %v", code, says, h.asked)
	}
	if code, says := p.ask(t, c, "POST", url+local.RouteScan, strings.Repeat(" ", maxBody+1)); code != 400 || len(h.asked) != 1 {
		t.Errorf("too long: got %d %q, %d", code, says, len(h.asked))
	}
}

// TestEvents: one for a visit, one for what is more than a look, and few for
// many failures.
func TestEvents(t *testing.T) {
	h := newHouse(t)
	url := h.open(t)
	now := time.Now()
	h.book.now = func() time.Time { return now }
	p := h.admit(t, apitype.RoleOperator, nil)
	c := p.client(t, h.node.ID(), nil)
	for range 3 {
		p.ask(t, c, "GET", url+local.RouteStatus, "")
	}
	p.ask(t, c, "POST", url+local.RouteScan, "{}")
	p.ask(t, c, "POST", url+local.RouteCapture, "{}") // not for operators
	now = now.Add(visitEnds + time.Second)
	p.ask(t, c, "GET", url+local.RouteStatus, "")
	if got := h.kinds(); !slices.Equal(got, []string{EventOpened, EventUsed, EventDenied, EventOpened}) {
		t.Errorf("got %v", got)
	}
	if e := h.events[1]; e.Fields["user"] != "anna" || e.Fields["remote"] != "127.0.0.1" || e.Fields["did"] != "POST /v1/radios/scan" || e.Fields["serial"] != "7" || e.Fields["role"] != apitype.RoleOperator {
		t.Errorf("got %+v", e)
	}
	if e := h.events[2]; e.Fields["user"] != "anna" || e.Fields["remote"] != "127.0.0.1" || e.Fields["asked"] != "POST /v1/radios/capture" || e.Fields["needs"] != apitype.RoleAdmin || e.Severity != model.Warning {
		t.Errorf("got %+v", e)
	}
	h.events = nil
	for range 100 { // from ever new addresses
		h.book.refused(netip.MustParseAddr("10.43.1.7"), 1, errors.New("no key"))
	}
	now = now.Add(newsGap + time.Second)
	h.book.refused(netip.MustParseAddr("10.43.1.7"), 1, errors.New("no key"))
	if len(h.events) != newsAtOnce+1 || h.events[newsAtOnce].Fields["failures"] != "96" {
		t.Errorf("got %d events, the last %+v", len(h.events), h.events[len(h.events)-1])
	}
}

// TestLooksThatTellMuch are events, of each operator on its own, and so is what the
// role may not: few for many, with their number.
func TestLooksThatTellMuch(t *testing.T) {
	h := newHouse(t)
	url := h.open(t)
	now := time.Now()
	h.book.now = func() time.Time { return now }
	anna, paul := h.admit(t, apitype.RoleOperator, nil), h.admit(t, apitype.RoleViewer, func(c *operator.Certificate) { c.Serial, c.User = 8, "paul" })
	ca, cp := anna.client(t, h.node.ID(), nil), paul.client(t, h.node.ID(), nil)
	for _, c := range []*http.Client{ca, cp} {
		c.Transport.(*http.Transport).DisableKeepAlives = false
	}
	for range 20 {
		if code, says := anna.ask(t, ca, "GET", url+local.RouteSupport, ""); code != 200 {
			t.Fatal(code, says)
		}
	}
	for range 20 { // what anna did hides nothing of it
		if code, says := paul.ask(t, cp, "GET", url+local.RouteSupport, ""); code != 403 {
			t.Fatal(code, says)
		}
	}
	now = now.Add(newsGap + time.Second)
	anna.ask(t, ca, "GET", url+local.RouteSupport, "")
	paul.ask(t, cp, "GET", url+local.RouteSupport, "")
	count := map[string]int{}
	last := map[string]model.Event{}
	for _, e := range h.events {
		count[e.Kind+" "+e.Fields["user"]]++
		last[e.Kind+" "+e.Fields["user"]] = e
	}
	used, denied := EventUsed+" anna", EventDenied+" paul"
	if count[used] != newsAtOnce+1 || count[denied] != newsAtOnce+1 || len(h.events) != 2*(newsAtOnce+1)+2 {
		t.Errorf("got %v", count)
	}
	if e := last[used]; e.Fields["did"] != "GET "+local.RouteSupport || e.Fields["times"] != "16" {
		t.Errorf("got %+v", e)
	}
	if e := last[denied]; e.Fields["asked"] != "GET "+local.RouteSupport || e.Fields["needs"] != apitype.RoleOperator || e.Fields["times"] != "16" {
		t.Errorf("got %+v", e)
	}
}

// TestVisitsAreBounded though certificates and addresses are many.
func TestVisitsAreBounded(t *testing.T) {
	b := newBook(func(string, model.Severity, string, ...string) {})
	for i := range 3 * maxVisits {
		b.came(operator.Certificate{Serial: uint64(i)}, netip.MustParseAddr("10.42.0.9"))
		b.denied(operator.Certificate{Serial: uint64(i)}, netip.MustParseAddr("10.42.0.9"), Route{})
	}
	if len(b.visits) > maxVisits || len(b.tallies) > maxVisits {
		t.Errorf("%d visits and %d counts are remembered", len(b.visits), len(b.tallies))
	}
}

// TestFailuresSlowDown whoever fails, and nobody else.
func TestFailuresSlowDown(t *testing.T) {
	h := newHouse(t)
	url := h.open(t)
	var nobody person
	c := nobody.client(t, h.node.ID(), nil)
	for i := range freeFailures {
		if code, _ := nobody.ask(t, c, "GET", url+local.RouteStatus, ""); code != 401 {
			t.Fatalf("failure %d: got %d", i+1, code)
		}
	}
	if code, says := nobody.ask(t, c, "GET", url+local.RouteStatus, ""); code != 429 || !strings.Contains(says, "try again in") {
		t.Errorf("got %d %q", code, says)
	}
	if len(h.kinds()) != freeFailures {
		t.Errorf("got %v", h.kinds())
	}
}

func TestSlow(t *testing.T) {
	s := NewSlow()
	now := time.Unix(0, 0)
	s.now = func() time.Time { return now }
	for range freeFailures - 1 {
		s.Fail("a")
	}
	if s.Wait("a") != 0 {
		t.Error("waits too soon")
	}
	for _, want := range []time.Duration{2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		s.Fail("a")
		if got := s.Wait("a"); got != want*time.Second {
			t.Errorf("waits %s, want %ds", got, want)
		}
	}
	if s.Wait("b") != 0 {
		t.Error("another waits too")
	}
	now = now.Add(longestWait)
	if s.Wait("a") != 0 {
		t.Error("waits for ever")
	}
	s.Succeed("a")
	if n := s.Fail("a"); n != 1 {
		t.Errorf("after a success %d in a row", n)
	}
	for i := range 3 * maxRemembered {
		s.Fail(fmt.Sprint(i))
	}
	if len(s.seen) > maxRemembered {
		t.Errorf("%d are remembered", len(s.seen))
	}
}

func TestBucket(t *testing.T) {
	b, now := newBucket(3, 2), time.Unix(0, 0)
	took := func() (n int) {
		for b.take(now) {
			n++
		}
		return n
	}
	if n := took(); n != 3 {
		t.Errorf("at once: %d", n)
	}
	now = now.Add(time.Second)
	if n := took(); n != 2 {
		t.Errorf("a second later: %d", n)
	}
	now = now.Add(time.Hour)
	if n := took(); n != 3 {
		t.Errorf("an hour later: %d", n)
	}
}

// TestOddKeys are not taken for an operator's.
func TestOddKeys(t *testing.T) {
	h := newHouse(t)
	url := h.open(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	p := h.admit(t, apitype.RoleAdmin, nil)
	c := p.client(t, h.node.ID(), nil)
	c.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	if code, says := p.ask(t, c, "GET", url+local.RouteStatus, ""); code != 401 || !strings.Contains(says, "Ed25519") {
		t.Errorf("got %d %q", code, says)
	}
}

func address(t *testing.T, l netlink.Link, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	if err == nil {
		err = netlink.AddrAdd(l, a)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPlaces: a laptop on a client port reaches its node at the node's address
// there and at that of the overlay; another of the overlay at the latter. Who
// comes from where he does not belong gets no connection.
func TestPlaces(t *testing.T) {
	h := newHouse(t)
	if got := Places(h.network.Public()); len(got) != 0 {
		t.Errorf("without interfaces there are %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, func() []listen.At { return Places(h.network.Public()) }) }()

	near, far := nstest.Cable(t, "port", "laptop")
	br := nstest.Hub(t, paths.ClientBridge, near)
	address(t, br, "10.43.7.1/24")
	address(t, br, "192.168.8.1/24") // so that answers would find their way
	laptop := nstest.NewHost(t, far)
	laptop.Do(t, func() error {
		address(t, far, "10.43.7.20/24")
		address(t, far, "192.168.8.20/24")
		l, err := netlink.LinkByName("laptop")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IPv4(10, 43, 7, 1)})
	})
	wg, other := nstest.Cable(t, paths.OverlayIface, "member")
	overlay6 := identity.Overlay(h.network.Public(), h.node.Public()).String()
	address(t, wg, "10.42.0.9/16")
	address(t, wg, "192.168.7.1/24")
	address(t, wg, overlay6+"/64")
	member := nstest.NewHost(t, other)
	member.Do(t, func() error {
		address(t, other, "10.42.0.5/16")
		address(t, other, "192.168.7.5/24")
		return nil
	})

	p := h.admit(t, apitype.RoleViewer, nil)
	from := func(host *nstest.Host, source, to string) error {
		c := p.client(t, h.node.ID(), func(ctx context.Context, _, addr string) (conn net.Conn, err error) {
			d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
			host.Do(t, func() error { conn, err = d.DialContext(ctx, "tcp4", addr); return nil })
			return conn, err
		})
		defer c.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://%s:%d%s", to, paths.DoorPort, local.RouteStatus), nil)
		if err != nil {
			return err
		}
		req.Header.Set(operator.Header, p.cert)
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && !bytes.Equal(b, []byte("inside")) {
			err = fmt.Errorf("%s %s", resp.Status, b)
		}
		return err
	}
	for _, way := range []struct {
		host       *nstest.Host
		source, to string
	}{
		{laptop, "10.43.7.20", "10.43.7.1"},
		{laptop, "10.43.7.20", "10.42.0.9"},
		{member, "10.42.0.5", "10.42.0.9"},
	} {
		deadline := time.Now().Add(patience)
		for {
			err := from(way.host, way.source, way.to)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s to %s: %v", way.source, way.to, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	for _, way := range []struct {
		host       *nstest.Host
		source, to string
	}{{laptop, "192.168.8.20", "10.43.7.1"}, {member, "192.168.7.5", "10.42.0.9"}} {
		if err := from(way.host, way.source, way.to); err == nil {
			t.Errorf("%s came in at %s", way.source, way.to)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
