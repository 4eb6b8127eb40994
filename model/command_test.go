package model

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCommandsAreChecked(t *testing.T) {
	peer := netip.MustParseAddr("10.42.0.9")
	for _, tc := range []struct {
		name string
		c    Command
		want string // part of the error; empty: it is good
	}{
		{"reboot", Command{Kind: CommandReboot}, ""},
		{"of another kind", Command{Kind: CommandReboot, Locate: &LocateCommand{}}, "no arguments of locate"},
		{"no kind", Command{}, "expected one of"},
		{"a shell", Command{Kind: "shell"}, `got "shell"`},
		{"restart", Command{Kind: CommandRestart, Restart: &RestartCommand{"halo-field"}}, ""},
		{"restart of nothing", Command{Kind: CommandRestart}, "expected a component"},
		{"restart of a path", Command{Kind: CommandRestart, Restart: &RestartCommand{"../gokrazy/init"}}, "../gokrazy/init"},
		{"locate", Command{Kind: CommandLocate}, ""},
		{"locate for ever", Command{Kind: CommandLocate, Locate: &LocateCommand{601}}, "1 to 600, got 601"},
		{"locate backwards", Command{Kind: CommandLocate, Locate: &LocateCommand{-1}}, "got -1"},
		{"output", Command{Kind: CommandSetOutput, Output: &OutputCommand{Output: "GPIO 17/relay", On: true}}, ""},
		{"no output", Command{Kind: CommandSetOutput}, "output's name"},
		{"an output that is none", Command{Kind: CommandSetOutput, Output: &OutputCommand{Output: "a\nb", On: true}}, "output's name"},
		{"display", Command{Kind: CommandDisplay, Display: &DisplayCommand{Display: "ssd1306", Lines: []string{"Grüße", ""}, Seconds: 86400}}, ""},
		{"display of nothing", Command{Kind: CommandDisplay}, ""},
		{"display by a path", Command{Kind: CommandDisplay, Display: &DisplayCommand{Display: "../x"}}, "label of a chip"},
		{"display of much", Command{Kind: CommandDisplay, Display: &DisplayCommand{Lines: make([]string, 9)}}, "at most 8 lines, got 9"},
		{"display of what cannot be shown", Command{Kind: CommandDisplay, Display: &DisplayCommand{Lines: []string{"a", "b\x1b[2J"}}}, "line 2"},
		{"display of no text", Command{Kind: CommandDisplay, Display: &DisplayCommand{Lines: []string{"\xff"}}}, "line 1"},
		{"display for ever", Command{Kind: CommandDisplay, Display: &DisplayCommand{Seconds: 86401}}, "1 to 86400, got 86401"},
		{"scan", Command{Kind: CommandScan}, ""},
		{"scan by what", Command{Kind: CommandScan, Scan: &ScanRequest{strings.Repeat("x", 33)}}, "33"},
		{"capture", Command{Kind: CommandCapture}, ""},
		{"capture of too much", Command{Kind: CommandCapture, Capture: &CaptureRequest{Bytes: CommandFileMax + 1}}, "1048577"},
		{"capture for too long", Command{Kind: CommandCapture, Capture: &CaptureRequest{Seconds: 61}}, "61"},
		{"config", Command{Kind: CommandConfig, Config: &AgentConfig{SampleS: 0.5}}, ""},
		{"config of everything", Command{Kind: CommandConfig}, ""},
		{"config that is no number", Command{Kind: CommandConfig, Config: &AgentConfig{SendS: math.NaN()}}, "send_s"},
		{"config without end", Command{Kind: CommandConfig, Config: &AgentConfig{SendS: math.Inf(1)}}, "send_s"},
		{"config below", Command{Kind: CommandConfig, Config: &AgentConfig{SpoolDelayS: 0.5, SpoolBudgetMiB: -1}}, "spool_budget_mib"},
		{"speed test", Command{Kind: CommandSpeedTest, SpeedTest: &SpeedTestCommand{Peer: peer, DownBytes: 1, LimitMS: 100}}, ""},
		{"speed test with nobody", Command{Kind: CommandSpeedTest}, "address"},
		{"speed test of too much", Command{Kind: CommandSpeedTest, SpeedTest: &SpeedTestCommand{Peer: peer, DownBytes: SpeedDownBytes + 1, LimitMS: 100}}, "2000001"},
		{"speed test for too long", Command{Kind: CommandSpeedTest, SpeedTest: &SpeedTestCommand{Peer: peer, LimitMS: 15_001}}, "15001"},
		{"serve", Command{Kind: CommandSpeedServe, SpeedServe: &SpeedServeCommand{Peer: peer, LimitMS: 100, WaitMS: 1000}}, ""},
		{"serve for ever", Command{Kind: CommandSpeedServe, SpeedServe: &SpeedServeCommand{Peer: peer, WaitMS: math.MaxUint32}}, "4294967295"},
		{"serve nobody", Command{Kind: CommandSpeedServe, SpeedServe: &SpeedServeCommand{WaitMS: 1000}}, "address"},
	} {
		err := tc.c.Check()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	c := Command{Kind: CommandCapture}
	if err := c.Check(); err != nil || c.Capture.Bytes != CommandCaptureBytes || c.Capture.Seconds != CaptureSeconds {
		t.Errorf("a capture of which nothing is said is %+v, %v", c.Capture, err)
	}
}

func TestWay(t *testing.T) {
	if w := Way(2_000_000, 4*time.Second, false); w.Mbps != 4 || w.Seconds != 4 {
		t.Errorf("got %+v", w)
	}
	if w := Way(0, 0, true); w.Mbps != 0 || !w.Cut {
		t.Errorf("nothing: got %+v", w)
	}
}
