package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"halo.internal/lab"
	"halo.internal/lab/cardtest"
	"halo.internal/lab/control"
	"halo.internal/lab/load"
	"halo.internal/lab/machine"
	"halo.internal/lab/played"
)

// TestMain is also the daemon that up starts, and what load does in a network of its own: both
// call their own program. And it is the gateway-api that load starts.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "--data":
		os.Exit(beGateway())
	case load.IsApart():
		os.Exit(lab.Run(context.Background(), lab.Env{Name: os.Args[0], Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr}))
	}
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(lab.Run(context.Background(), lab.Env{Name: os.Args[0], Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr}))
	}
	played.Main(m)
}

// shell runs halo-lab in a folder of its own.
type shell struct {
	t      *testing.T
	dir    string
	images []string
}

func newShell(t *testing.T, script string) shell {
	t.Helper()
	played.Install(t)
	image := cardtest.Image(t, map[string]string{"vmlinuz": "k", "initrd.bin": "i", "cmdline.txt": script})
	s := shell{t, filepath.Join(t.TempDir(), "lab"), []string{"--gateway-image", image, "--node-image", image}}
	t.Cleanup(func() { s.do(0, "down") })
	return s
}

// do runs a command, checks its exit status and returns what it printed.
func (s shell) do(status int, args ...string) (stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"--dir", s.dir}, args...)
	ctx := context.WithoutCancel(s.t.Context()) // which has ended when cleanups run, and down is one
	if got := lab.Run(ctx, lab.Env{Name: "bin/halo-lab", Args: args, Stdout: &out, Stderr: &errs}); got != status {
		s.t.Fatalf("halo-lab %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, status, &out, &errs)
	}
	return out.String(), errs.String()
}

func (s shell) up(args ...string) string {
	s.t.Helper()
	out, _ := s.do(0, append(append([]string{"up"}, s.images...), args...)...)
	return out
}

func (s shell) status() control.Status {
	s.t.Helper()
	out, _ := s.do(0, "status", "--json")
	var st control.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

func (s shell) mentions(text string, wants ...string) {
	s.t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			s.t.Errorf("%q is not in\n%s", w, text)
		}
	}
}

// gone waits for a process to end.
func gone(t *testing.T, p machine.Process) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); p.Alive(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d still runs", p.PID)
		}
	}
}

func processes(t *testing.T, st control.Status) (list []machine.Process) {
	t.Helper()
	for _, m := range st.Machines {
		p, err := machine.Lookup(m.PID)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func TestALabFromUpToDown(t *testing.T) {
	s := newShell(t, "well")
	pcap := filepath.Join(t.TempDir(), "wire.pcap")
	s.mentions(s.up("--nodes", "2", "--mesh", "cable", "--pcap", pcap), "3 machines are up", "Claim code: ", "https://127.0.0.1:", "bin/halo-lab down", "node2")
	st := s.status()
	if !st.Ready || len(st.Machines) != 3 || st.Machines[0].Name != "gateway" || st.Machines[2].State != machine.Running {
		t.Errorf("status: %+v", st)
	}
	qemus := processes(t, st)
	daemon, err := control.Find(s.dir)
	if err != nil {
		t.Fatal(err)
	}

	_, text := s.do(1, append([]string{"up"}, s.images...)...)
	s.mentions(text, "a lab is up")

	s.do(0, "kill", "node1", "node2")
	s.do(1, "kill", "node1")
	s.do(0, "start", "node1")
	s.do(0, "reboot", "gateway")
	st = s.status()
	if st.Machines[0].Starts != 2 || st.Machines[1].Starts != 2 || st.Machines[2].State != machine.Off || st.Machines[2].LastEnd != "power-cut" {
		t.Errorf("after reboot, kill and start: %+v", st.Machines)
	}
	s.do(0, "stop", "node1")
	if m := s.status().Machines[1]; m.State != machine.Off || m.LastEnd != "guest-shutdown" {
		t.Errorf("after stop: %+v", m)
	}
	s.do(1, "stop", "node1")
	s.do(0, "start", "node1")
	s.do(0, "pause", "node1")
	_, text = s.do(1, "resume", "node1")
	s.mentions(text, "not today")

	s.do(0, "link", "node1", "--loss", "25%", "--delay", "80ms", "--jitter", "5ms", "--rate", "150k")
	s.do(0, "link", "node1", "gateway", "--loss", "0.5")
	s.do(0, "partition", "gateway,node1")
	out, _ := s.do(0, "status")
	s.mentions(out, "loss 25%, delay 80ms, jitter 5ms, rate 150 kbit/s, in group 1", "gateway to node1: loss 50%", "paused")
	s.do(0, "link", "node1")
	s.do(0, "heal")
	if st = s.status(); st.Switch.Links["node1"].Condition.Loss != 0 || st.Switch.Links["node1"].Group != 0 {
		t.Errorf("after repair and heal: %+v", st.Switch.Links["node1"])
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(out, "-name gateway"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the gateway's console: got %q", out)
		}
		out, _ = s.do(0, "console", "gateway", "-n", "1")
	}
	out, _ = s.do(0, "console", "gateway", "--back", "1")
	s.mentions(out, "-name gateway")

	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"kill", "node9"}, `expected one of [gateway node1 node2], got "node9"`},
		{[]string{"link", "node9"}, `got "node9"`},
		{[]string{"link", "node1", "--loss", "much"}, "--loss: expected a share"},
		{[]string{"link", "node1", "--loss", "2"}, "loss: expected 0 to 1"},
		{[]string{"link", "node1", "--rate", "fast"}, "--rate: expected bits per second"},
		{[]string{"partition", "node1", "node1"}, "node1 is in two groups"},
		{[]string{"partition", "node9"}, `got "node9"`},
		{[]string{"air"}, "the machines mesh by cable alone"},
		{[]string{"air", "move", "node1", "0", "0"}, "the machines mesh by cable alone"},
		{[]string{"air", "jam"}, "the machines mesh by cable alone"},
		{[]string{"air", "rogue", "commits"}, "the machines mesh by cable alone"},
		{[]string{"air", "capture", "x"}, "the machines mesh by cable alone"},
		{[]string{"console", "node9"}, "no such file"},
	} {
		_, text := s.do(1, tc.args...)
		s.mentions(text, tc.want)
	}

	s.do(0, "down")
	for _, p := range append(qemus, daemon.Process) {
		gone(t, p)
	}
	if _, err := os.Stat(daemon.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	if b, err := os.ReadFile(pcap); err != nil || len(b) != 24 {
		t.Errorf("capture of a silent switch: %d octets, %v; want its header", len(b), err)
	}
	_, text = s.do(1, "status")
	s.mentions(text, "no lab is up", "next: bin/halo-lab up")
	s.do(0, "down") // twice is no error
}

func TestUpForPrograms(t *testing.T) {
	s := newShell(t, "well")
	var st struct {
		control.Status
		ClaimCode string `json:"claim_code"`
	}
	if err := json.Unmarshal([]byte(s.up("--nodes", "0", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	if !st.Ready || st.ClaimCode == "" || len(st.Machines) != 1 {
		t.Errorf("got %+v", st)
	}
}

// A daemon that is killed takes its machines along, or the next command does.
func TestNothingOutlivesAKilledLab(t *testing.T) {
	s := newShell(t, "well")
	s.up("--nodes", "1")
	qemus := processes(t, s.status())
	l, err := control.Find(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(l.Process.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, l.Process)
	_, text := s.do(1, "status")
	s.mentions(text, "no lab is up")
	s.do(0, "down")
	for _, p := range qemus {
		gone(t, p)
	}
	s.up("--nodes", "0") // and the folder is free again
}

func TestANetworkThatDoesNotComeUpIsEnded(t *testing.T) {
	for _, tc := range []struct{ script, patience, want string }{
		{"stay", "1s", "is not ready: not within 1s"},
		{"crash", "1m", "flux-capacitor"},
	} {
		t.Run(tc.script, func(t *testing.T) {
			s := newShell(t, tc.script)
			_, text := s.do(1, append([]string{"up", "--nodes", "0", "--patience", tc.patience}, s.images...)...)
			s.mentions(text, tc.want, "--- ", "-name gateway") // with the end of the console
			_, text = s.do(1, "status")
			s.mentions(text, "no lab is up")
		})
	}
}

func TestWrongUsage(t *testing.T) {
	s := newShell(t, "well")
	for _, args := range [][]string{{"fly"}, {"up", "--wings"}, {"kill"}, {"link"}} {
		_, text := s.do(2, args...)
		s.mentions(text, "halo-lab --help")
	}
	_, text := s.do(1, "up", "--gateway-image", "nowhere.img")
	s.mentions(text, "nowhere.img")
	for want, flags := range map[string][]string{
		"nodes: expected 0 to 64, got 1000":                  {"--nodes", "1000"},
		`mesh: expected one of air, cable, both, got "wire"`: {"--mesh", "wire"},
		`profile: expected one of [wifi halow-1`:             {"--profile", "lora"},
		"radios: expected 1 to 4, got 9":                     {"--radios", "9"},
		"spacing: expected up to 20000000 m, got -1":         {"--spacing", "-1"},
	} {
		_, text = s.do(1, slices.Concat([]string{"up"}, s.images, flags)...)
		s.mentions(text, want)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	s := shell{t: t, dir: t.TempDir()}
	out, _ := s.do(0, "--help")
	for _, name := range []string{"up", "down", "status", "ctl", "claim", "console", "reboot", "stop", "kill", "start", "pause", "resume", "partition", "heal", "link", "air", "bus", "gpio", "gps"} {
		if !strings.Contains(out, "\n  "+name+" ") {
			t.Errorf("%s is not listed", name)
		}
		help, _ := s.do(0, name, "--help")
		s.mentions(help, "halo-lab "+name, "--json")
	}
	for _, name := range []string{"move", "cut", "heal", "loss", "disorder", "jam", "rogue", "capture"} {
		help, _ := s.do(0, "air", name, "--help")
		s.mentions(help, "halo-lab air "+name, "--json")
	}
}
