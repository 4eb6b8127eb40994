package api

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// populate adds that many nodes, which are there and have said how they are.
func (f *fixture) populate(nodes int) {
	f.t.Helper()
	err := f.API.Config.Config.Write(f.t.Context(), func(tx *sql.Tx) error {
		for i := range nodes {
			key := identity.New()
			wg := key.WireGuardPublic()
			if _, err := tx.Exec(`INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, clients, board, version, macs, admitted_by, joined) VALUES (?, ?, 'node', ?, ?, ?, ?, 'rpi4b', 'v1', ?, 'token:0f3a9c', 1795950000000)`,
				key.ID(), fmt.Sprintf("n%03d", i), key.Public().Base64(), base64.StdEncoding.EncodeToString(wg[:]), fmt.Sprintf("10.42.%d.%d", 1+i/200, 1+i%200), 1+i%254,
				fmt.Sprintf(`["02:00:00:00:%02x:01","02:00:00:00:%02x:02"]`, i%256, i%256)); err != nil {
				return err
			}
			f.Registry.Online(key.ID(), 7)
			f.Registry.Status(key.ID(), model.NodeStatus{State: "ok", Board: "rpi4b", Kernel: "6.12.57+deb13-arm64", Version: "v0.1.0-12-gabc1234", Commit: "df36bd63d89dd4a54556b5f5935b99452f3a716f",
				Slot: "a", UptimeS: 86_400, Serial: fmt.Sprintf("10000000abcd%04x", i), Interfaces: []model.Interface{{Name: "bat0", Kind: "mesh", Up: true}}})
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// get asks as over the loopback, without a connection.
func (f *fixture) get(path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.Host = "localhost"
	r.Header.Set("Authorization", "Bearer "+f.token)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv6loopback, Port: 8080}))
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

// BenchmarkNodes250 asks for the list of 250 nodes: when nothing was written since it was
// asked for last, and when something was.
func BenchmarkNodes250(b *testing.B) {
	f := newFixture(b)
	f.unheld = true
	const nodes = 250
	f.populate(nodes)
	ask := func() {
		w := f.get("/v1/nodes?limit=500")
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
		b.SetBytes(int64(w.Body.Len()))
	}
	var l apitype.NodeList
	if err := json.Unmarshal(f.get("/v1/nodes?limit=500").Body.Bytes(), &l); err != nil || len(l.Items) != nodes+1 || !l.Items[nodes].Online {
		b.Fatalf("%d nodes, %v", len(l.Items), err)
	}
	b.Run("as it was", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ask()
		}
	})
	b.Run("written since", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			f.exec("UPDATE nodes SET serial = serial || 'x' WHERE name = 'n007'")
			b.StartTimer()
			ask()
		}
	})
	b.Run("what each request costs", func(b *testing.B) {
		for b.Loop() {
			if w := f.get("/v1/nodes/n007/interfaces?limit=1"); w.Code != http.StatusOK {
				b.Fatal(w.Code, w.Body)
			}
		}
	})
}
