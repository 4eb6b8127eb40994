package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

// daemon answers with err, or with what was asked.
type daemon struct {
	err  error
	late bool // the error of a capture comes after its first octets
	last string
}

func (d *daemon) Status(_ context.Context, brief bool) (model.MeshStatus, error) {
	d.last = fmt.Sprint(brief)
	return model.MeshStatus{Node: "n-x"}, nil
}
func (d *daemon) Events(boot, seq uint64) []model.Event {
	d.last = fmt.Sprint(boot, seq)
	return []model.Event{}
}
func (d *daemon) Timeline() []model.Recovery {
	return []model.Recovery{{Cause: model.CausePowerOn, Stages: []model.RecoveryMark{}}}
}
func (d *daemon) Membership() (model.Membership, error) { return model.Membership{Name: "mast"}, d.err }
func (d *daemon) PutPeers(p []model.AdmittedPeer) error { d.last = fmt.Sprint(len(p)); return d.err }
func (d *daemon) PutAnnounce(a model.Announce) error    { d.last = a.CASHA256; return d.err }
func (d *daemon) PutOperators(o model.Operators) error  { d.last = fmt.Sprint(o.Floor); return d.err }
func (d *daemon) PutNames(n []model.BrainName) error    { d.last = n[0].Name; return d.err }
func (d *daemon) CheckCode(c model.CodeTry) error       { d.last = c.Where; return d.err }
func (d *daemon) ShowClaimCode(c string) error          { d.last = c; return d.err }
func (d *daemon) EraseClaimCode() error                 { d.last = "erased"; return d.err }
func (d *daemon) OfferTime(o model.TimeOffer) error     { d.last = o.User; return d.err }
func (d *daemon) GPSTime(t model.GPSTime) error         { d.last = fmt.Sprint(t.BootNS); return d.err }
func (d *daemon) PutRevoked(ids []string) error         { d.last = strings.Join(ids, " "); return d.err }
func (d *daemon) RotateKey() error                      { d.last = "rotated"; return d.err }
func (d *daemon) Profile() (model.MeshProfile, error)   { return model.MeshProfile{Phase: "idle"}, d.err }
func (d *daemon) BatteryTime(t model.BatteryTime) error {
	d.last = fmt.Sprint(t.Time.Unix())
	return d.err
}
func (d *daemon) PutProfile(c model.ProfileChange) error {
	d.last = fmt.Sprint(c.RotateSecret)
	return d.err
}
func (d *daemon) Backup() (model.MeshBackup, error) {
	return model.MeshBackup{Bundle: []byte("[gateway]")}, d.err
}
func (d *daemon) Restore(r model.MeshRestore) error { d.last = r.ID; return d.err }
func (d *daemon) MeshSecret() (bundle.Mesh, error)  { return bundle.Mesh{PSK: "the secret"}, d.err }
func (d *daemon) Scan(_ context.Context, q model.ScanRequest) (model.RadioScan, error) {
	d.last = q.Radio
	return model.RadioScan{Radio: "phy0"}, d.err
}
func (d *daemon) Channels() ([]model.RadioChannels, error)   { return []model.RadioChannels{}, d.err }
func (d *daemon) Legal() ([]model.Legality, error)           { return []model.Legality{}, d.err }
func (d *daemon) Reservations() ([]model.Reservation, error) { return []model.Reservation{}, d.err }
func (d *daemon) PutReservation(r model.Reservation) error {
	d.last = r.MAC
	return d.err
}
func (d *daemon) DeleteReservation(mac string) error { d.last = mac; return d.err }
func (d *daemon) Topology() (model.MeshTopology, error) {
	return model.MeshTopology{Routing: "BATMAN_IV"}, d.err
}
func (d *daemon) Leases() (map[string][]model.Lease, error) {
	return map[string][]model.Lease{"br0": {{Name: "phone"}}}, d.err
}
func (d *daemon) Firewall() (model.FirewallStatus, error) { return model.FirewallStatus{}, d.err }
func (d *daemon) PutFirewallPolicy(o model.FirewallOrder) error {
	d.last = fmt.Sprint(len(o.Policy.Rules), o.TrialS)
	return d.err
}
func (d *daemon) FirewallPolicy() (model.FirewallInForce, error) {
	return model.FirewallInForce{Kept: "ab"}, d.err
}
func (d *daemon) PreviewFirewall(q model.FirewallQuestion) (model.FirewallPreview, error) {
	d.last = q.Local.String()
	return model.FirewallPreview{LocksOut: "shut"}, d.err
}
func (d *daemon) Interfaces() ([]model.InterfaceDetail, error) {
	return []model.InterfaceDetail{{Detail: &model.InterfaceCounters{MTU: 1500}}}, d.err
}
func (d *daemon) NeighbourTable() ([]model.NeighbourEntry, error) {
	return []model.NeighbourEntry{{State: "stale"}}, d.err
}
func (d *daemon) Clients() ([]model.Client, error) { return []model.Client{{Hostname: "phone"}}, d.err }
func (d *daemon) Batman(table string) (model.BatmanTables, error) {
	d.last = table
	return model.BatmanTables{Node: "n-x"}, d.err
}
func (d *daemon) PutVisitors(l []model.Visitor) error { d.last = fmt.Sprint(len(l)); return d.err }
func (d *daemon) Doctor() (model.DoctorReport, error) {
	return model.DoctorReport{Examining: 1}, d.err
}
func (d *daemon) Examine(context.Context) (model.DoctorReport, error) {
	d.last = "examined"
	return model.DoctorReport{}, d.err
}
func (d *daemon) DNS() (model.DNSStatus, error) {
	return model.DNSStatus{Names: []model.DNSName{{Name: "mast"}}}, d.err
}
func (d *daemon) Capture(_ context.Context, q model.CaptureRequest, w io.Writer) error {
	d.last = fmt.Sprint(q.Seconds)
	if d.err == nil || d.late {
		if _, err := w.Write([]byte("frames")); err != nil {
			return err
		}
	}
	return d.err
}

func TestRoutes(t *testing.T) {
	for _, tc := range []struct {
		method, path, body string
		err                error
		code               int
		last, answer       string
	}{
		{"GET", "/health", "", nil, 503, "", `"missing":"bat0"`},
		{"GET", "/v1/status", "", nil, 200, "false", `"node":"n-x"`},
		{"GET", "/v1/status?brief", "", nil, 200, "true", `"node":"n-x"`},
		{"GET", "/v1/events", "", nil, 200, "0 0", "[]"},
		{"GET", "/v1/events?after=3.14", "", nil, 200, "3 14", "[]"},
		{"GET", "/v1/events?after=3", "", nil, 422, "", "BOOT.SEQ"},
		{"GET", "/v1/events?after=-1.2", "", nil, 422, "", "BOOT.SEQ"},
		{"GET", "/v1/timeline", "", nil, 200, "", `"cause":"power-on"`},
		{"GET", "/v1/membership", "", nil, 200, "", `"name":"mast"`},
		{"GET", "/v1/membership", "", fmt.Errorf("%w: searching", ErrNone), 404, "", "searching"},
		{"GET", "/v1/mesh/topology", "", nil, 200, "", `"routing":"BATMAN_IV"`},
		{"GET", "/v1/mesh/topology", "", fmt.Errorf("%w: no network", ErrNone), 404, "", "no network"},
		{"GET", "/v1/net/reservations", "", nil, 200, "", "[]"},
		{"PUT", "/v1/net/reservations", `{"mac":"02:00:00:00:00:07","address":"10.43.7.7"}`, nil, 204, "02:00:00:00:00:07", ""},
		{"PUT", "/v1/net/reservations", `{"mac":"02:00:00:00:00:07","address":"nowhere"}`, nil, 422, "", "invalid body"},
		{"PUT", "/v1/net/reservations", `{"mac":"02:00:00:00:00:07","address":"10.43.7.7"}`, fmt.Errorf("%w: in use", ErrBusy), 409, "02:00:00:00:00:07", "in use"},
		{"DELETE", "/v1/net/reservations/02:00:00:00:00:07", "", nil, 204, "02:00:00:00:00:07", ""},
		{"DELETE", "/v1/net/reservations/x", "", ErrNone, 404, "x", "not there"},
		{"GET", "/v1/backup", "", nil, 200, "", `"bundle":"W2dhdGV3YXld"`},
		{"GET", "/v1/backup", "", ErrRole, 409, "", "only a gateway"},
		{"PUT", "/v1/backup", `{"id":"b1","bundle":"W2dhdGV3YXld","boot":7}`, nil, 204, "b1", ""},
		{"PUT", "/v1/backup", `{"id":"b1","bundle":"*"}`, nil, 422, "", "invalid body"},
		{"PUT", "/v1/backup", `{"id":"b1"}`, fmt.Errorf("%w: bundle", ErrInvalid), 422, "b1", "bundle"},
		{"GET", "/v1/doctor", "", nil, 200, "", `"examining":1`},
		{"POST", "/v1/doctor", "", nil, 200, "examined", `"peers"`},
		{"POST", "/v1/doctor", "", fmt.Errorf("%w: no network", ErrNone), 404, "examined", "no network"},
		{"PUT", "/v1/overlay/peers", `[{"node":"a"},{"node":"b"}]`, nil, 204, "2", ""},
		{"PUT", "/v1/overlay/peers", `[{"nodes":"a"}]`, nil, 422, "", "unknown field"},
		{"PUT", "/v1/overlay/peers", `[`, nil, 422, "", "invalid body"},
		{"PUT", "/v1/overlay/peers", `[]`, ErrRole, 409, "0", "only a gateway"},
		{"PUT", "/v1/announce", `{"api_port":8443,"ca_sha256":"ab"}`, nil, 204, "ab", ""},
		{"PUT", "/v1/announce", `{"api_port":8443}`, fmt.Errorf("%w: ca_sha256", ErrInvalid), 422, "", "ca_sha256"},
		{"PUT", "/v1/operators", `{"floor":3,"revoked":[4]}`, nil, 204, "3", ""},
		{"PUT", "/v1/names", `[{"name":"brain-send-n01","nodes":["n-a"]}]`, nil, 204, "brain-send-n01", ""},
		{"PUT", "/v1/names", `[{"name":"brain-send-n01","address":"10.42.0.7"}]`, nil, 422, "", "unknown field"},
		{"PUT", "/v1/names", `[{"name":"mast"}]`, fmt.Errorf("%w: name 0", ErrInvalid), 422, "mast", "name 0"},
		{"POST", "/v1/code", `{"code":"7K3M","where":"tty1"}`, nil, 204, "tty1", ""},
		{"POST", "/v1/code", `{"code":"7K3M","where":"tty1"}`, fmt.Errorf("%w: wait", ErrBusy), 409, "tty1", "wait"},
		{"POST", "/v1/code", `{`, nil, 422, "", "invalid body"},
		{"PUT", "/v1/overlay/revoked", `["n-a","n-b"]`, nil, 204, "n-a n-b", ""},
		{"PUT", "/v1/overlay/revoked", `["n-a"]`, fmt.Errorf("%w: revoked", ErrInvalid), 422, "n-a", "revoked"},
		{"PUT", "/v1/overlay/key", "", nil, 204, "rotated", ""},
		{"GET", "/v1/profile", "", nil, 200, "", `"phase":"idle"`},
		{"PUT", "/v1/profile", `{"rotate_secret":true}`, nil, 204, "true", ""},
		{"PUT", "/v1/profile", `{"psk":"x"}`, nil, 422, "", "unknown field"},
		{"PUT", "/v1/profile", `{}`, fmt.Errorf("%w: another change is preparing", ErrBusy), 409, "false", "another change"},
		{"GET", "/v1/profile/secret", "", nil, 200, "", `"PSK":"the secret"`},
		{"GET", "/v1/profile/secret", "", ErrRole, 409, "", "only a gateway"},
		{"PUT", "/v1/boot/claim-code", `{"code":"7K3M"}`, nil, 204, "7K3M", ""},
		{"PUT", "/v1/boot/claim-code", `{"code":"7K3M"}`, errors.New("card is gone"), 500, "7K3M", "card is gone"},
		{"DELETE", "/v1/boot/claim-code", "", nil, 204, "erased", ""},
		{"PUT", "/v1/time", `{"time":"2026-11-28T09:00:00Z","user":"anna","remote":"10.42.0.9"}`, nil, 204, "anna", ""},
		{"PUT", "/v1/time", `{"time":"today"}`, nil, 422, "", "invalid body"},
		{"PUT", "/v1/time", `{"time":"1970-01-01T00:00:00Z"}`, fmt.Errorf("%w: time refused", ErrInvalid), 422, "", "time refused"},
		{"GET", "/v1/radios/channels", "", nil, 200, "", "[]"},
		{"GET", "/v1/radios/legal", "", errors.New("netlink"), 500, "", "netlink"},
		{"GET", "/v1/net/leases", "", nil, 200, "", `{"br0":[{"address":"","mac":"","name":"phone"`},
		{"GET", "/v1/net/leases", "", fmt.Errorf("%w: no server", ErrNone), 404, "", "no server"},
		{"GET", "/v1/net/firewall", "", nil, 200, "", `"zones":`},
		{"GET", "/v1/net/firewall/policy", "", nil, 200, "", `"kept":"ab"`},
		{"GET", "/v1/net/firewall/policy", "", ErrRole, 409, "", "only a gateway"},
		{"PUT", "/v1/net/firewall/policy", `{"policy":{"rules":[{"name":"x","action":"deny","from":"uplink","to":"local","ports":["80-81"]}]},"trial_s":60}`, nil, 204, "1 60", ""},
		{"PUT", "/v1/net/firewall/policy", `{"policy":{"rule":[]}}`, nil, 422, "", "unknown field"},
		{"PUT", "/v1/net/firewall/policy", `{"policy":{}}`, fmt.Errorf("%w: no service telnet", ErrInvalid), 422, "0 0", "telnet"},
		{"POST", "/v1/net/firewall/preview", `{"policy":{},"remote":"10.42.0.9","local":"10.42.0.1:8080"}`, nil, 200, "10.42.0.1:8080", `"locks_out":"shut"`},
		{"GET", "/v1/net/interfaces", "", nil, 200, "", `"mtu":1500`},
		{"GET", "/v1/net/neighbours", "", nil, 200, "", `"state":"stale"`},
		{"GET", "/v1/net/clients", "", nil, 200, "", `"hostname":"phone"`},
		{"GET", "/v1/mesh/batman/originators", "", nil, 200, "originators", `"node":"n-x"`},
		{"GET", "/v1/mesh/batman/x", "", ErrNone, 404, "x", "not there"},
		{"PUT", "/v1/overlay/visitors", `[{"id":"a"}]`, nil, 204, "1", ""},
		{"GET", "/v1/net/dns", "", nil, 200, "", `"names":[{"name":"mast"`},
		{"POST", "/v1/radios/scan", `{"radio":"phy0"}`, nil, 200, "phy0", `"radio":"phy0"`},
		{"POST", "/v1/radios/scan", `{"radio":"phy0"}`, fmt.Errorf("%w: scanning", ErrBusy), 409, "phy0", "scanning"},
		{"POST", "/v1/radios/scan", `{"radios":""}`, nil, 422, "", "unknown field"},
		{"POST", "/v1/radios/capture", `{"seconds":3}`, nil, 200, "3", "frames"},
		{"POST", "/v1/radios/capture", `{}`, fmt.Errorf("%w: no radio", ErrNone), 404, "0", "no radio"},
		{"POST", "/v1/radios/capture", ``, nil, 422, "", "invalid body"},
		{"POST", "/v1/status", "", nil, 405, "", ""},
		{"GET", "/", "", nil, 404, "", ""},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			d := &daemon{err: tc.err}
			g := health.New("halo-mesh")
			g.Declare("bat0")
			w := httptest.NewRecorder()
			Handler(d, g).ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body)))
			if w.Code != tc.code || d.last != tc.last || !strings.Contains(w.Body.String(), tc.answer) {
				t.Errorf("got %d %q, daemon was told %q, want %d …%s… %q", w.Code, w.Body, d.last, tc.code, tc.answer, tc.last)
			}
			if w.Code == http.StatusNoContent && w.Body.Len() > 0 {
				t.Error("no content has content")
			}
		})
	}
}

// TestACaptureThatFailsIsNeverTakenForWhole by a client that has begun to read.
func TestACaptureThatFailsIsNeverTakenForWhole(t *testing.T) {
	s := httptest.NewServer(Handler(&daemon{err: errors.New("the radio is gone"), late: true}, health.New("halo-mesh")))
	defer s.Close()
	resp, err := http.Post(s.URL+"/v1/radios/capture", "application/json", strings.NewReader("{}"))
	if err == nil {
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
	}
	if err == nil {
		t.Error("the answer ended as if it were whole")
	}
}

func FuzzParseAfter(f *testing.F) {
	f.Add("1.2")
	f.Add("1.2.3")
	f.Fuzz(func(t *testing.T, s string) {
		boot, seq, err := parseAfter(s)
		if err != nil || s == "" {
			return
		}
		if b, q, err := parseAfter(fmt.Sprintf("%d.%d", boot, seq)); err != nil || b != boot || q != seq {
			t.Fatalf("%q: %d.%d does not survive", s, boot, seq)
		}
	})
}
