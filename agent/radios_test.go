package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

func TestRadioTelemetry(t *testing.T) {
	st := model.MeshStatus{Radios: []model.Radio{
		{Name: "phy0", Iface: "mesh0", TxPowerDBm: 20, Dropped: model.Dropped{SAEUnverified: 2, PeeringReplayed: 1}},
		{Name: "phy1", Absent: true, Iface: "mesh1"}, {Name: "phy2", Detail: "in use"},
	}}
	for i := range 20 {
		st.Radios[0].Peers = append(st.Radios[0].Peers, model.RadioPeer{MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), Node: fmt.Sprintf("n-%020d", i), Linked: i != 3, SignalDBm: -40 - float64(i), TxMbps: 6.5, RxMbps: 13, Expected: 4, TxPackets: 100, TxRetries: 10})
	}
	at := time.Now()
	fails := error(nil)
	r := &radios{
		status: func() (model.MeshStatus, time.Time) { return st, at },
		channels: func(context.Context) ([]model.RadioChannels, error) {
			return []model.RadioChannels{{Radio: "phy0", Channels: []model.RadioChannel{{FreqMHz: 2412}, {FreqMHz: 2437, InUse: true, NoiseDBm: -95, BusyPercent: 12.34}}}}, fails
		},
		legal: func(context.Context) ([]model.Legality, error) {
			return []model.Legality{{Radio: "phy0", AirtimeS: 9, AirtimeMaxS: 36}}, nil
		},
	}
	read := func() (map[string]string, error) {
		list, err := r.Collect(t.Context())
		got := map[string]string{}
		var s wire.Schema
		for _, v := range list {
			s.Metrics = append(s.Metrics, v.Metric)
			got[v.Metric.Name] = fmt.Sprint(v.Metric.Number(v.Value))
		}
		if len(list) > 0 {
			if err := s.Check(); err != nil {
				t.Error(err)
			}
		}
		return got, err
	}
	got, err := read()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"radio.mesh0.peers": "19", "radio.mesh0.handshakes_dropped": "3", "radio.mesh0.signal_dbm": "-40", "radio.mesh0.tx_power_dbm": "20", "radio.mesh0.noise_dbm": "-95",
		"radio.mesh0.busy_percent": "12.3", "radio.mesh0.airtime_s": "9", "radio.mesh0.airtime_used_percent": "25",
		"link.n-00000000000000000000.signal_dbm": "-40", "link.n-00000000000000000000.expected_mbps": "4", "link.n-00000000000000000000.retry_percent": "NaN",
	} {
		if got[name] != want {
			t.Errorf("%s: got %s, want %s", name, got[name], want)
		}
	}
	links := func(got map[string]string) (n int) {
		for name := range got {
			if strings.HasPrefix(name, "link.") && strings.HasSuffix(name, ".signal_dbm") {
				n++
			}
		}
		return n
	}
	if n := links(got); n != maxLinks {
		t.Errorf("got %d links, want %d", n, maxLinks)
	}
	// One that is told of stays while others are stronger, and shares are of the time between.
	st.Radios[0].Peers[0].SignalDBm = -90
	st.Radios[0].Peers[0].TxPackets, st.Radios[0].Peers[0].TxRetries, st.Radios[0].Peers[0].TxFailed = 300, 60, 2
	got, _ = read()
	if got["link.n-00000000000000000000.signal_dbm"] != "-90" || got["link.n-00000000000000000000.retry_percent"] != "25" || got["link.n-00000000000000000000.failed_percent"] != "1" {
		t.Errorf("got %v", got)
	}
	st.Radios[0].Peers[0].TxPackets = 5 // it came anew
	if got, _ = read(); got["link.n-00000000000000000000.retry_percent"] != "NaN" {
		t.Errorf("counters went back: %v", got)
	}
	fails = errors.New("it hangs")
	if got, err := read(); err == nil || got["radio.mesh0.peers"] != "19" {
		t.Errorf("what is known is there all the same: %v, %v", got, err)
	}
	at = at.Add(-time.Hour)
	if got, err := read(); len(got) != 0 || err != nil {
		t.Errorf("what is an hour old: %v, %v", got, err)
	}
}
