//go:build lab

package radio_test

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"testing"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
)

// child is the environment variable by which TestChild is a member: a
// childConfig.
const child = "HALO_RADIO_CHILD"

// childConfig says what a process of its own is to be.
type childConfig struct {
	Wiphy    int
	Iface    string
	FreqMHz  int
	Method   sae.Method
	MaxPeers int
}

// TestChild is that process.
func TestChild(t *testing.T) {
	text := os.Getenv(child)
	if text == "" {
		return // it is run as a test like the others
	}
	var c childConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	err := radio.New(radio.Config{
		Wiphy: c.Wiphy, Iface: c.Iface, MeshID: meshID, Password: password, Method: c.Method, MaxPeers: c.MaxPeers,
		Channel: nl80211.Channel{FreqMHz: c.FreqMHz, Width: nl80211.Width20}, Log: slog.New(slog.DiscardHandler),
	}).Run(t.Context(), nil)
	t.Fatal(err)
}

// process is one that is a member.
type process struct {
	l *lab
	*exec.Cmd
	iface string
	left  int // index of the interface that a life before has left; 0: none
}

func (l *lab) startChild(c childConfig) *process {
	l.t.Helper()
	text, err := json.Marshal(c)
	l.ok(err)
	p := &process{l: l, Cmd: exec.Command("/proc/self/exe", "-test.run=^TestChild$"), iface: c.Iface}
	if i, err := net.InterfaceByName(c.Iface); err == nil {
		p.left = i.Index
	}
	p.Env = append(os.Environ(), child+"="+string(text))
	l.ok(p.Start())
	return p
}

// begun tells whether it has made its interface: one that was left has its name, its
// address, and its links.
func (p *process) begun() bool {
	i, err := net.InterfaceByName(p.iface)
	return err == nil && i.Index != p.left
}

// kill ends it without a word to anybody.
func (p *process) kill() {
	p.l.t.Helper()
	p.l.ok(p.Process.Kill())
	if err := p.Wait(); err == nil {
		p.l.t.Error("the process ended by itself")
	}
}
