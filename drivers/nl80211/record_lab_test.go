//go:build lab

package nl80211_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	gonetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
)

// TestRecord writes what the kernel says to testdata/kernel.txt, for tests of the
// codec that run anywhere: one line per message, its command and its attributes.
func TestRecord(t *testing.T) {
	if !*nl80211.Update {
		return
	}
	l := newLab(t, nl80211.AllGroups()...)
	raw, err := genetlink.Dial(nil)
	l.ok(err)
	defer raw.Close()
	fam, err := raw.GetFamily(unix.NL80211_GENL_NAME)
	l.ok(err)
	for _, g := range fam.Groups {
		l.ok(raw.JoinGroup(g.ID))
	}
	a, b := l.radio(nl80211.MeshPoint), l.radio(nl80211.MeshPoint)
	for _, r := range []*radio{a, b} {
		l.ok(l.conn.JoinMesh(r.Index, open()))
	}
	l.peered(a, b)
	l.carry(a, b)
	l.ok(l.conn.SetCountry("DE"))
	await(l, "country", func(e nl80211.RegulatoryChanged) bool { return e.Country == "DE" })
	l.ok(l.conn.StartScan(b.Index, nl80211.Scan{FreqsMHz: []int{2412, 2437}}))
	await(l, "scan", func(e nl80211.ScanDone) bool { return true })

	var out bytes.Buffer
	seen := map[uint8]int{}
	line := func(kind string, m genetlink.Message) {
		fmt.Fprintf(&out, "%s %d %s\n", kind, m.Header.Command, hex.EncodeToString(m.Data))
	}
	dumps, err := genetlink.Dial(nil)
	l.ok(err)
	defer dumps.Close()
	own := gonetlink.Attribute{Type: unix.NL80211_ATTR_IFINDEX, Data: []byte{byte(a.Index), 0, 0, 0}}
	for _, q := range []struct {
		command uint8
		flags   gonetlink.HeaderFlags
		attrs   []gonetlink.Attribute
	}{
		{unix.NL80211_CMD_GET_WIPHY, gonetlink.Dump, []gonetlink.Attribute{
			{Type: unix.NL80211_ATTR_SPLIT_WIPHY_DUMP}, {Type: unix.NL80211_ATTR_WIPHY, Data: []byte{byte(a.Wiphy), 0, 0, 0}},
		}},
		{unix.NL80211_CMD_GET_INTERFACE, gonetlink.Dump, nil},
		{unix.NL80211_CMD_GET_STATION, gonetlink.Dump, []gonetlink.Attribute{own}},
		{unix.NL80211_CMD_GET_MESH_CONFIG, 0, []gonetlink.Attribute{own}},
		{unix.NL80211_CMD_GET_SURVEY, gonetlink.Dump, []gonetlink.Attribute{{Type: unix.NL80211_ATTR_IFINDEX, Data: []byte{byte(b.Index), 0, 0, 0}}}},
		{unix.NL80211_CMD_GET_REG, 0, nil},
		{unix.NL80211_CMD_GET_SCAN, gonetlink.Dump, []gonetlink.Attribute{{Type: unix.NL80211_ATTR_IFINDEX, Data: []byte{byte(b.Index), 0, 0, 0}}}},
	} {
		data, err := gonetlink.MarshalAttributes(q.attrs)
		l.ok(err)
		ms, err := dumps.Execute(genetlink.Message{Header: genetlink.Header{Command: q.command, Version: fam.Version}, Data: data}, fam.ID, gonetlink.Request|q.flags)
		l.ok(err)
		for _, m := range ms {
			line(fmt.Sprintf("answer-%d", q.command), m)
		}
	}
	l.ok(l.conn.LeaveMesh(b.Index))
	l.ok(l.conn.JoinMesh(b.Index, peers()))
	await(l, "candidate", func(e nl80211.PeerCandidate) bool { return e.Iface == b.Index })
	_, err = l.conn.Send(b.Index, nl80211.SendFrame{Data: mgmt(nl80211.FrameAction, a.MAC, b.MAC, []byte{15, 3})})
	l.ok(err)
	await(l, "status", func(e nl80211.FrameStatus) bool { return true })
	_, err = l.conn.Vendor(a.Index, hwsimTest, []byte{8, 0, 8, 0, 5, 0, 0, 0}, true)
	l.ok(err)

	l.ok(raw.SetReadDeadline(time.Now().Add(time.Second)))
	for {
		ms, _, err := raw.Receive()
		if err != nil {
			break // all have come
		}
		for _, m := range ms {
			const most = 2 // of a kind
			if seen[m.Header.Command]++; seen[m.Header.Command] <= most {
				line("event", m)
			}
		}
	}
	l.ok(l.conn.SetCountry("00"))
	l.ok(os.MkdirAll("testdata", 0o755))
	l.ok(os.WriteFile("testdata/kernel.txt", out.Bytes(), 0o644))
}
