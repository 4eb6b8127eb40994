package mesh_test

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
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/mesh"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/bridge"
	"halo.internal/mesh/doctor"
	"halo.internal/mesh/iface"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
	"halo.internal/model/paths"
)

// What a board's process is told by its environment.
const (
	envRole  = "HALO_TEST_ROLE"
	envRoot  = "HALO_TEST_ROOT"
	envBoot  = "HALO_TEST_BOOT"
	envSkew  = "HALO_TEST_SKEW"
	envTwins = "HALO_TEST_TWINS"

	probeSocket = "probe.sock"
	epochFile   = "epoch"  // of the fake gateway-api
	revokeFile  = "revoke" // the node that is revoked
	waitFile    = "wait"   // while it is there, new nodes wait for an admin
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// device is the process of a board: halo-mesh, on a gateway something that
// stands for gateway-api, and a probe for the test.
func device(role model.Role) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	root := os.Getenv(envRoot)
	skew, err := time.ParseDuration(os.Getenv(envSkew))
	if err == nil {
		err = upLoopback()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	go serveProbe(ctx, filepath.Join(root, probeSocket))
	if os.Getenv(envSegment) != "" { // it is plugged in when power comes
		awaitWire(ctx)
	}
	switch {
	case role == model.RoleGateway && os.Getenv(envReal) != "":
		go realAPI(ctx, root)
	case role == model.RoleGateway:
		go (&fakeAPI{root: root, mesh: meshOf(root)}).run(ctx)
	}
	err = mesh.Run(ctx, mesh.Config{
		Userspace: true, Root: root, Role: role, BootID: os.Getenv(envBoot), Boot: plainBoot{}, Clock: &skewed{offset: skew},
		Console: func() (io.WriteCloser, error) { return os.Create(filepath.Join(root, "console")) },
		Underlay: func(c mesh.UnderlayConfig) mesh.Underlay {
			if os.Getenv(envSegment) != "" {
				return newSegment(c, root)
			}
			return &cable{c: c, err: errors.New("no cable yet")}
		},
		AnnounceTiming: announceTiming(), ChangeTiming: changeTiming(), RekeyOverlap: rekeyOverlap, RejoinPause: 5 * time.Second,
		Restart: func() error { os.Exit(restarted); return nil },
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// rekeyOverlap is shorter than in a mesh in the air.
const rekeyOverlap = 15 * time.Second

// announceTiming is shorter than that of a mesh in the air. Where two gateways are there
// for long (envTwins), one of them is gone when it has not answered for two searches of a
// quarter of a minute; elsewhere, the one that is sought is off.
func announceTiming() announce.Timing {
	t := announce.Timing{Reopen: 250 * time.Millisecond, Pause: 6 * time.Second, TakeOver: 30 * time.Second, Stay: 10 * time.Second}
	if os.Getenv(envTwins) == "" {
		t.Search, t.TakeOver, t.Doubt = 500*time.Millisecond, 15*time.Second, 6*time.Second
	}
	return t
}

func awaitWire(ctx context.Context) {
	for ctx.Err() == nil {
		if _, err := netlink.LinkByName(wireIface); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func upLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// askLater asks a gateway in a board's name, as if its machine ran for a day longer.
func askLater(key identity.Key, network identity.PublicKey, boot uint64) error {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return err
	}
	wg := key.WireGuardPublic()
	q := announce.Node{WireGuardKey: wg[:], Nonce: make([]byte, announce.NonceSize)}
	q.Stamp.Boot, q.Stamp.Seq = boot, uint64((time.Duration(up.Nano())+24*time.Hour)/time.Millisecond)
	b, err := announce.Codec{Network: network}.EncodeNode(key, q)
	if err != nil {
		return err
	}
	c, err := net.Dial("udp6", net.JoinHostPort(identity.Underlay(network, network).String(), strconv.Itoa(paths.AnnouncePort)))
	if err != nil {
		return err
	}
	_, err = c.Write(b)
	return errors.Join(err, c.Close())
}

// plainBoot is a boot partition that can always be written.
type plainBoot struct{}

func (plainBoot) Writable(f func() error) error { return f() }

// skewed is a clock that is off until it is set. It never touches the host's.
type skewed struct {
	mu     sync.Mutex
	offset time.Duration
}

func (s *skewed) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.offset).Round(0)
}

func (s *skewed) Set(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = time.Until(t)
	return nil
}

func (*skewed) RTC() (time.Time, error) { return time.Time{}, errors.New("no battery-backed clock") }

// cable is an underlay of one cable that the test lays.
type cable struct {
	noRadios
	c     mesh.UnderlayConfig
	mu    sync.Mutex
	err   error
	aside bool
}

// Run addresses every cable that appears.
func (c *cable) Run(ctx context.Context) error {
	index, failed := 0, false
	var changes iface.Changes // to look each time would be a quarter of a board's work
	defer changes.Close()
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if !changes.Any() && !failed {
			continue
		}
		link, err := netlink.LinkByName(paths.BatIface)
		c.mu.Lock()
		if failed = false; err == nil && link.Attrs().Index != index {
			if err = c.address(); err == nil {
				index = link.Attrs().Index
			}
			failed = err != nil
		}
		c.err = err
		c.mu.Unlock()
	}
	return nil
}

// address is as a board's underlay does it, but for hardware addresses: no two ends
// of cables have the same.
func (c *cable) address() error {
	own := identity.Underlay(c.c.Network, c.c.Key.Public())
	err := errors.Join(askSoon(paths.BatIface), mesh.AddressUnderlay(paths.BatIface, own))
	if err == nil && c.aside {
		err = mesh.LeaveUnderlay(paths.BatIface, own)
	}
	return err
}

// askSoon has the kernel see within some seconds, and not after forty, that a neighbour has
// another hardware address, as it has at the end of another cable. On a board that is the
// same, or halo-mesh tells the kernel (meet.go).
func askSoon(iface string) (err error) {
	for key, value := range map[string]string{"base_reachable_time_ms": "2000", "delay_first_probe_time": "1", "ucast_solicit": "1"} {
		err = errors.Join(err, os.WriteFile(filepath.Join("/proc/sys/net/ipv6/neigh", iface, key), []byte(value), 0))
	}
	return err
}

func (c *cable) Aside(aside bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aside == aside {
		return nil
	}
	c.aside = aside
	return c.address()
}

func (*cable) Switch(bundle.Mesh)             {}
func (*cable) Permit(bundle.Mesh) error       { return nil }
func (*cable) Say(mesh.Stranger, []byte)      {}
func (*cable) Recheck()                       {}
func (*cable) Lacking() error                 { return nil }
func (*cable) Hangs() (string, time.Duration) { return "", 0 }
func (*cable) Carries() bool                  { return true }

func (c *cable) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *cable) Ports() []model.Port {
	return []model.Port{{Iface: "eth0", Role: "mesh", Members: []string{"n-aaaaaaaaaaaaaaaaaaaa"}}}
}
func (c *cable) Neighbours() ([]model.Neighbour, error) { return []model.Neighbour{}, nil }
func (c *cable) Originators() (int, error)              { return 1, nil }
func (c *cable) Ways([]identity.PublicKey) (mesh.Ways, error) {
	return mesh.Ways{}, nil
}
func (*cable) NextHop() *model.ReportNextHop                  { return nil }
func (*cable) Tables(...string) (mesh.Tables, error)          { return mesh.Tables{}, nil }
func (c *cable) Present() map[dot11.MAC]bool                  { return nil }
func (c *cable) Meet([]mesh.Acquaintance, bool) (bool, error) { return true, nil }

// A cable has no batman-adv.
func (c *cable) Flooding() (bool, error)                 { return false, fs.ErrNotExist }
func (c *cable) Flood() error                            { return fs.ErrNotExist }
func (c *cable) Servers() ([]doctor.Server, bool, error) { return nil, false, nil }

// noRadios is the air of a device that has none.
type noRadios struct{}

func (noRadios) Radios() []model.Radio   { return []model.Radio{} }
func (noRadios) Standing() []model.Radio { return []model.Radio{} }
func (noRadios) Scan(context.Context, model.ScanRequest) (model.RadioScan, error) {
	return model.RadioScan{}, api.ErrNone
}
func (noRadios) Channels() ([]model.RadioChannels, error) { return []model.RadioChannels{}, nil }
func (noRadios) Legal() ([]model.Legality, error)         { return []model.Legality{}, nil }
func (noRadios) Capture(context.Context, model.CaptureRequest, io.Writer) error {
	return api.ErrNone
}

// patiently has the probe wait for an answer as long as a test waits for anything: that
// it does not come for a while is no failure.
const patiently = "patiently"

// probeLimit is how long the probe waits for an answer. A test that tries again does not
// want it to wait for long.
func probeLimit(r *http.Request) time.Duration {
	if r.URL.Query().Has(patiently) {
		return patience
	}
	return 5 * time.Second
}

// serveProbe lets the test look from inside the board's namespace.
func serveProbe(ctx context.Context, socket string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/fetch", func(w http.ResponseWriter, r *http.Request) {
		c := http.Client{Timeout: probeLimit(r), Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Get(paths.OverlayAPI + "/?" + r.URL.RawQuery) // octets=N: a page of more than that
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	// A port for clients, as mesh/port would make it.
	mux.HandleFunc("/client", func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("iface")
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = errors.Join(netlink.LinkSetUp(link), bridge.Ports(paths.ClientBridge).Enslave(name))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	// A handshake of WireGuard in the board's name, a year ahead of time.
	mux.HandleFunc("/ahead", func(w http.ResponseWriter, r *http.Request) {
		key, err := identityAt(filepath.Dir(socket))
		to, errKey := hex.DecodeString(r.URL.Query().Get("key"))
		c, errDial := net.Dial("udp6", net.JoinHostPort(r.URL.Query().Get("address"), strconv.Itoa(paths.WireGuardPort)))
		if err = errors.Join(err, errKey, errDial); err == nil {
			err = errors.Join(nstest.Initiate(c, key.WireGuard(), [32]byte(to), time.Now().AddDate(1, 0, 0), 5*time.Second), c.Close())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	// A question in the board's name, of a day later in that start: it was up for longer.
	mux.HandleFunc("/later", func(w http.ResponseWriter, r *http.Request) {
		key, err := identityAt(filepath.Dir(socket))
		boot, errBoot := strconv.ParseUint(r.URL.Query().Get("boot"), 10, 64)
		network, errNet := identity.ParsePublicKey(r.URL.Query().Get("network"))
		if err = errors.Join(err, errBoot, errNet); err == nil {
			err = askLater(key, network, boot)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	// Nobody listens there, and the other's firewall says so.
	mux.HandleFunc("/reach", func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&net.Dialer{Timeout: probeLimit(r)}).DialContext(r.Context(), "tcp", net.JoinHostPort(r.URL.Query().Get("address"), "9"))
		switch {
		case err == nil:
			conn.Close()
		case !errors.Is(err, unix.EHOSTUNREACH):
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	mux.HandleFunc("/haloctl", haloctl)
	// What the board's own programs are told of a name.
	mux.HandleFunc("/resolve", func(w http.ResponseWriter, r *http.Request) {
		own := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:53")
		}}
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		list, err := own.LookupNetIP(ctx, "ip", r.URL.Query().Get("name"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		for i, a := range list {
			list[i] = a.Unmap()
		}
		slices.SortFunc(list, netip.Addr.Compare)
		fmt.Fprint(w, list)
	})
	if err := local.Serve(ctx, socket, mux); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
	}
}

func unixTransport(socket string) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
}

// fakeAPI does what halo-mesh needs of gateway-api: a CA, the join route, and
// the lists that it hands over. What it has admitted outlives a restart.
type fakeAPI struct {
	root string
	mesh *local.Mesh
	mu   sync.Mutex
	book
	announce model.Announce
}

// book is its database.
type book struct {
	Admitted []model.AdmittedPeer
	Revoked  []string
}

// write keeps the book, and has halo-mesh take it.
func (f *fakeAPI) write(ctx context.Context) error {
	b, err := json.Marshal(f.book)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(f.file(), b, 0o600), f.mesh.PutPeers(ctx, f.Admitted), f.mesh.PutRevoked(ctx, f.Revoked))
}

func (f *fakeAPI) file() string { return filepath.Join(f.root, paths.State, "book.json") }

func (f *fakeAPI) run(ctx context.Context) {
	var self model.Membership
	for ctx.Err() == nil {
		var err error
		if self, err = f.mesh.Membership(ctx); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if b, err := os.ReadFile(f.file()); err == nil {
		_ = json.Unmarshal(b, &f.book) // written by an earlier life of this test
	}
	cert, ca, caPEM, err := f.certificates(self)
	if err == nil {
		f.announce = model.Announce{APIPort: paths.APITLSPort, CASHA256: hex.EncodeToString(ca[:])}
		if b, err := os.ReadFile(filepath.Join(f.root, epochFile)); err == nil {
			f.announce.Epoch, _ = strconv.ParseUint(string(b), 10, 64) // the test wrote it
		}
		err = errors.Join(f.mesh.PutAnnounce(ctx, f.announce), f.mesh.PutPeers(ctx, f.Admitted), f.mesh.PutRevoked(ctx, f.Revoked))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake gateway-api:", err)
		return
	}
	go f.follow(ctx)
	go f.revoke(ctx)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/nodes/join", func(w http.ResponseWriter, r *http.Request) { f.join(w, r, self, caPEM) })
	server := http.Server{Addr: fmt.Sprintf("[::]:%d", paths.APITLSPort), Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	go func() { fmt.Fprintln(os.Stderr, server.ListenAndServeTLS("", "")) }()
	page := http.Server{Addr: fmt.Sprintf("[::]:%d", paths.APIPort), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "welcome")
		n, _ := strconv.Atoi(r.URL.Query().Get("octets"))
		_, _ = w.Write(make([]byte, n)) // or the test hears of it
	})}
	fmt.Fprintln(os.Stderr, page.ListenAndServe())
}

// follow raises the epoch as a fresh card does when nodes have heard another card.
func (f *fakeAPI) follow(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		f.mu.Lock()
		fresh := len(f.Admitted) == 0
		f.mu.Unlock()
		if !fresh { // nothing follows from it any more, and a status is dear
			continue
		}
		s, err := f.mesh.Status(ctx)
		if err != nil {
			continue
		}
		f.mu.Lock()
		if len(f.Admitted) == 0 && s.HeardEpoch != 0 && s.HeardEpoch >= f.announce.Epoch {
			f.announce.Epoch = s.HeardEpoch + 1
			err = errors.Join(os.WriteFile(filepath.Join(f.root, epochFile), []byte(fmt.Sprint(f.announce.Epoch)), 0o600), f.mesh.PutAnnounce(ctx, f.announce))
		}
		f.mu.Unlock()
		if err != nil {
			fmt.Fprintln(os.Stderr, "fake gateway-api:", err)
		}
	}
}

// revoke takes nodes off the book that the test names in a file.
func (f *fakeAPI) revoke(ctx context.Context) {
	for done := ""; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(f.root, revokeFile))
		if err != nil || string(b) == done {
			continue
		}
		f.mu.Lock()
		f.Admitted = slices.DeleteFunc(f.Admitted, func(p model.AdmittedPeer) bool { return p.Node == string(b) })
		if !slices.Contains(f.Revoked, string(b)) {
			f.Revoked = append(f.Revoked, string(b))
		}
		err = f.write(ctx)
		f.mu.Unlock()
		if done = string(b); err != nil {
			fmt.Fprintln(os.Stderr, "fake gateway-api:", err)
		}
	}
}

func (f *fakeAPI) join(w http.ResponseWriter, r *http.Request, self model.Membership, caPEM string) {
	var q model.JoinRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	refuse := func(p *apitype.Problem) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(p)
	}
	if q.Nonce == "" {
		p := apitype.Refuse(http.StatusUnauthorized, apitype.ProblemJoinNonce, "sign this")
		p.Nonce = "once"
		refuse(p)
		return
	}
	key, err := identity.ParsePublicKey(q.IdentityKey)
	sig, errSig := base64.StdEncoding.DecodeString(q.Signature)
	if err != nil || errSig != nil || q.Nonce != "once" || !key.Verify(model.JoinContext, q.SignedBytes(), sig) {
		refuse(apitype.Refuse(http.StatusForbidden, apitype.ProblemJoinSignature, "signature does not fit"))
		return
	}
	network, err := identity.ParsePublicKey(self.Network)
	if err != nil {
		refuse(apitype.Refuse(http.StatusInternalServerError, "", "network key: %v", err))
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.Revoked, key.ID()) {
		refuse(apitype.Refuse(http.StatusForbidden, apitype.ProblemJoinRevoked, "this node was revoked"))
		return
	}
	ever := len(f.Admitted) + len(f.Revoked)
	peer := model.AdmittedPeer{
		Node: key.ID(), IdentityKey: q.IdentityKey, WireGuardKey: q.WireGuardKey,
		OverlayV4: netip.AddrFrom4([4]byte{10, 42, 1, byte(2 + ever)}), OverlayV6: identity.Overlay(network, key),
		Clients: paths.ClientsOf(uint8(1 + ever)),
	}
	known := false
	for _, p := range f.Admitted {
		if p.Node == peer.Node {
			peer, known = p, true
		}
	}
	if _, err := os.Stat(filepath.Join(f.root, waitFile)); err == nil && !known {
		refuse(apitype.Refuse(http.StatusForbidden, apitype.ProblemJoinPending, "an admin has to approve this node"))
		return
	}
	if !known {
		f.Admitted = append(f.Admitted, peer)
		if err := f.write(r.Context()); err != nil {
			refuse(apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemStore, "%v", err))
			return
		}
	}
	_ = json.NewEncoder(w).Encode(model.Membership{
		Node: peer.Node, Name: q.Name, Network: self.Network, OverlayV4: peer.OverlayV4, OverlayV6: peer.OverlayV6,
		GatewayWireGuardKey: self.GatewayWireGuardKey, CA: caPEM, Epoch: f.announce.Epoch, Clients: peer.Clients,
	})
}

// kept returns the CA of an earlier life, or makes it.
func (f *fakeAPI) kept(template *x509.Certificate) (*ecdsa.PrivateKey, []byte, error) {
	file := filepath.Join(f.root, paths.State, "ca.json")
	var ca struct{ Key, Cert []byte }
	b, err := os.ReadFile(file)
	if err == nil && json.Unmarshal(b, &ca) == nil {
		key, err := x509.ParseECPrivateKey(ca.Key)
		return key, ca.Cert, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if ca.Cert, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		return nil, nil, err
	}
	if ca.Key, err = x509.MarshalECPrivateKey(key); err != nil {
		return nil, nil, err
	}
	if b, err = json.Marshal(ca); err != nil {
		return nil, nil, err
	}
	return key, ca.Cert, os.WriteFile(file, b, 0o600)
}

// certificates returns the CA and a server certificate for the gateway's addresses.
func (f *fakeAPI) certificates(self model.Membership) (tls.Certificate, [sha256.Size]byte, string, error) {
	var none [sha256.Size]byte
	network, err := identity.ParsePublicKey(self.Network)
	if err != nil {
		return tls.Certificate{}, none, "", err
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now, NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	key, caDER, err := f.kept(ca)
	if err != nil {
		return tls.Certificate{}, none, "", err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "gateway"},
		NotBefore: now, NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{identity.Underlay(network, network).AsSlice()}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, none, "", err
	}
	return tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: key}, sha256.Sum256(caDER),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})), nil
}
