package act

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/agent/command"
	"halo.internal/agent/reset"
	"halo.internal/local"
	"halo.internal/model"
)

// board is a device whose supervisor and halo-mesh a test plays.
type board struct {
	Device
	mu     sync.Mutex // guards what follows
	pid    int
	stops  bool // gokrazy has it stopped
	killed int
	dead   bool // it does not come back
	meshes error
}

func (b *board) Process(_ context.Context, program string) (local.Process, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if program != "halo-field" && program != "haloctl" {
		return local.Process{}, fmt.Errorf("%s: %w", program, local.ErrNoProcess)
	}
	return local.Process{Pid: b.pid, Stopped: b.stops}, nil
}

func (b *board) Kill(context.Context, string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.killed++
	if !b.dead {
		b.pid++
	}
	return nil
}

func (b *board) Reboot(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (b *board) Scan(context.Context, model.ScanRequest) (model.RadioScan, error) {
	return model.RadioScan{}, b.meshes
}
func (b *board) Capture(context.Context, model.CaptureRequest, io.Writer) error { return b.meshes }
func (b *board) Legal(context.Context) ([]model.Legality, error)                { return nil, b.meshes }

func newBoard() *board {
	b := &board{pid: 7}
	b.Device = Device{
		Mesh: b, Supervisor: b, Supervised: func() bool { return true }, Socket: func(string) string { return "" }, Restart: func() {},
		Status: func() model.MeshStatus { return model.MeshStatus{} }, Log: slog.New(slog.DiscardHandler),
	}
	return b
}

func do(ctx context.Context, b *board, c model.Command) (command.Result, error) {
	return Actions(b.Device)[c.Kind].Do(ctx, &command.Task{Command: c})
}

func code(t *testing.T, err error, want string) {
	t.Helper()
	r, ok := errors.AsType[*model.CommandRefusal](err)
	if !ok || r.Code != want {
		t.Errorf("got %v, want a refusal with code %s", err, want)
	}
}

func restart(name string) model.Command {
	return model.Command{Kind: model.CommandRestart, Restart: &model.RestartCommand{Component: name}}
}

func TestRestartOfWhatIsNotThere(t *testing.T) {
	b := newBoard()
	_, err := do(t.Context(), b, restart("gateway-api"))
	code(t, err, model.CodeNoComponent)
	b.stops = true
	_, err = do(t.Context(), b, restart("halo-field"))
	code(t, err, model.CodeNoComponent)
	if b.killed != 0 {
		t.Error("something was killed")
	}
}

// A process that does not end when it is asked to is killed; one that does not come
// back is a failure.
func TestRestartOfWhatHangs(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "halo-field.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
		for ctx.Err() == nil { // as often as it is asked to end, it goes on
			if err := local.Serve(ctx, socket, mux); err != nil && !errors.Is(err, local.ErrRestart) {
				done <- err
				return
			}
		}
		done <- nil
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(time.Minute); !answers(ctx, socket); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody answers")
		}
	}
	b := newBoard()
	b.Socket = func(string) string { return socket }
	b.orderly, b.start = 50*time.Millisecond, 100*time.Millisecond
	res, err := do(t.Context(), b, restart("halo-field"))
	if err != nil || res.Value.(map[string]string)["ended"] != "by force" || b.killed != 1 {
		t.Errorf("got %+v, %v, killed %d times", res, err, b.killed)
	}
	b.dead = true
	if _, err := do(t.Context(), b, restart("halo-field")); err == nil {
		t.Error("a process that does not come back is no failure")
	}
	// The console has no socket.
	b.dead, b.Socket = false, func(string) string { return "" }
	if res, err := do(t.Context(), b, restart("haloctl")); err != nil || res.Value.(map[string]string)["ended"] != "by force" {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestWhatCannotBe(t *testing.T) {
	b := newBoard()
	b.Supervised = func() bool { return false }
	b.LEDs = filepath.Join(t.TempDir(), "none")
	able := func(k model.CommandKind) error { return Actions(b.Device)[k].Able() }
	code(t, able(model.CommandReboot), model.CodeUnsupported)
	code(t, able(model.CommandRestart), model.CodeUnsupported)
	code(t, able(model.CommandLocate), model.CodeNoLED)
	if err := able(model.CommandScan); err != nil {
		t.Errorf("halo-mesh has not said what radios there are, and the agent says: %v", err)
	}
	b.Status = func() model.MeshStatus { return model.MeshStatus{Node: "n-aaaaaaaaaaaaaaaaaaaa"} }
	code(t, able(model.CommandScan), model.CodeNoRadio)
	code(t, able(model.CommandCapture), model.CodeNoRadio)
	code(t, able(model.CommandSpeedTest), model.CodeNoOverlay)
	code(t, able(model.CommandSpeedServe), model.CodeNoOverlay)
	b.Status = func() model.MeshStatus {
		return model.MeshStatus{OverlayV4: "10.42.0.7", Radios: []model.Radio{{Name: "phy1", Detail: "in use"}, {Name: "phy0", Iface: "mesh0"}}}
	}
	for _, k := range []model.CommandKind{model.CommandScan, model.CommandCapture, model.CommandSpeedTest, model.CommandSpeedServe} {
		if err := able(k); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	if _, there := Actions(b.Device)[model.CommandSetOutput]; there { // without Outputs
		t.Error("a device that drives nothing says that it does")
	}
}

// asked is the request for a reset.
type asked struct{ by string }

func (a *asked) Ask(by string) error { a.by = by; return nil }
func (a *asked) Withdraw() (by string, err error) {
	by, a.by = a.by, ""
	return by, nil
}

// Who resets a node says which; a gateway is not reset from afar. A machine that does not
// start anew is not reset some day later.
func TestFactoryReset(t *testing.T) {
	b := newBoard()
	var request asked
	b.Node, b.Reset = "n-me", &request
	confirm := func(id string) model.Command {
		return model.Command{Kind: model.CommandReset, Reset: &model.ResetCommand{Confirm: id}}
	}
	_, err := do(t.Context(), b, confirm("n-other"))
	code(t, err, model.CodeInvalid)
	if request.by != "" {
		t.Error("another node's reset was asked for")
	}
	b.Role = model.RoleGateway
	code(t, Actions(b.Device)[model.CommandReset].Able(), model.CodeUnsupported)
	b.Role = model.RoleNode
	if err := Actions(b.Device)[model.CommandReset].Able(); err != nil {
		t.Error(err)
	}
	for _, refused := range []error{nil, errors.New("gokrazy refuses")} {
		synctest.Test(t, func(t *testing.T) {
			request.by = ""
			asked := make(chan struct{})
			b.Supervisor = rebooted{b, asked, refused}
			r, err := Actions(b.Device)[model.CommandReset].Do(t.Context(), &command.Task{Command: confirm("n-me"), By: "user:anna"})
			if err != nil || request.by != "user:anna" || r.Value == nil {
				t.Errorf("got %+v, %v, by %q", r, err, request.by)
			}
			<-asked
			synctest.Wait()
			if stands := request.by != ""; stands != (refused == nil) {
				t.Errorf("refused: %v, and the request stands: %v", refused, stands)
			}
			time.Sleep(reset.Patience) // the machine goes on
			synctest.Wait()
			if request.by != "" {
				t.Error("a start some day would be a reset")
			}
		})
	}
}

// rebooted tells when the machine is to start anew.
type rebooted struct {
	Supervisor
	asked  chan struct{}
	refuse error
}

func (r rebooted) Reboot(context.Context) error { close(r.asked); return r.refuse }

// switched is the outputs of a board.
type switched map[string]float64

func (s switched) Able() error                         { return nil }
func (s switched) Set(name string, part float64) error { s[name] = part; return nil }

func TestOutputsAreSwitched(t *testing.T) {
	b := newBoard()
	s, percent := switched{}, 40.0
	b.Outputs = s
	for _, c := range []model.OutputCommand{{Output: "siren", On: true}, {Output: "fan", On: true, Percent: &percent}, {Output: "lamp"}} {
		if _, err := do(t.Context(), b, model.Command{Kind: model.CommandSetOutput, Output: &c}); err != nil {
			t.Error(err)
		}
	}
	if s["siren"] != 1 || s["fan"] != 0.4 || s["lamp"] != 0 || len(s) != 3 {
		t.Errorf("got %v", s)
	}
}

func TestHaloMeshsNoIsTyped(t *testing.T) {
	b := newBoard()
	for err, want := range map[error]string{local.ErrNone: model.CodeNoRadio, local.ErrBusy: model.CodeBusy, local.ErrInvalid: model.CodeInvalid} {
		b.meshes = fmt.Errorf("POST /v1/radios/scan: %w", err)
		_, got := do(t.Context(), b, model.Command{Kind: model.CommandScan, Scan: &model.ScanRequest{}})
		code(t, got, want)
		_, got = do(t.Context(), b, model.Command{Kind: model.CommandCapture, Capture: &model.CaptureRequest{}})
		code(t, got, want)
	}
	b.meshes = local.ErrAbsent
	if _, err := do(t.Context(), b, model.Command{Kind: model.CommandScan, Scan: &model.ScanRequest{}}); !errors.Is(err, local.ErrAbsent) {
		t.Errorf("got %v", err)
	}
}

// The LED is as it was, whatever ends the blinking.
func TestLocateRestores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard()
		b.LEDs, b.LEDState = t.TempDir(), filepath.Join(t.TempDir(), "run", "leds")
		trigger := filepath.Join(b.LEDs, "ACT", "trigger")
		reset := func() {
			t.Helper()
			if err := os.MkdirAll(filepath.Dir(trigger), 0o755); err != nil {
				t.Fatal(err)
			}
			for f, v := range map[string]string{"trigger": "none timer [heartbeat]", "brightness": "0", "max_brightness": "1"} {
				if err := os.WriteFile(filepath.Join(b.LEDs, "ACT", f), []byte(v), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		is := func(want string) {
			t.Helper()
			if got, err := os.ReadFile(trigger); err != nil || string(got) != want {
				t.Errorf("the trigger is %q, %v, want %q", got, err, want)
			}
		}
		locate := model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 30}}
		reset()
		begin := time.Now()
		res, err := do(t.Context(), b, locate)
		if err != nil || time.Since(begin) != 30*time.Second || !slices.Equal(res.Value.(map[string]any)["leds"].([]string), []string{"ACT"}) {
			t.Errorf("after %s: %+v, %v", time.Since(begin), res, err)
		}
		is("heartbeat")
		reset()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := do(ctx, b, locate); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cut short: %v", err)
		}
		is("heartbeat")
		if _, err := os.Stat(b.LEDState); err == nil {
			t.Error("what the LEDs showed is still kept")
		}
		if err := b.RestoreLEDs(); err != nil {
			t.Error(err)
		}
	})
}

func TestConfigIsChangedOnce(t *testing.T) {
	b := newBoard()
	used := model.AgentConfig{SampleS: 10, SendS: 60, SpoolDelayS: 120, SpoolBudgetMiB: 64}
	b.Config = func() model.AgentConfig { return used }
	b.Configure = func(c model.AgentConfig) (model.AgentConfig, error) {
		if c.SendS == 1 {
			return c, model.RefuseCommand(model.CodeInvalid, "send: too soon")
		}
		next := used
		if c.SendS != 0 {
			next.SendS = c.SendS
		}
		return next, nil
	}
	of := func(c model.AgentConfig) (command.Result, error) {
		return do(t.Context(), b, model.Command{Kind: model.CommandConfig, Config: &c})
	}
	if res, err := of(model.AgentConfig{}); err != nil || res.Value != used || res.Then != nil {
		t.Errorf("a look: %+v, %v", res, err)
	}
	if res, err := of(model.AgentConfig{SendS: 60}); err != nil || res.Value != used || res.Then != nil {
		t.Errorf("what it is already: %+v, %v", res, err)
	}
	if res, err := of(model.AgentConfig{SendS: 30}); err != nil || res.Value.(model.AgentConfig).SendS != 30 || res.Then == nil {
		t.Errorf("a change: %+v, %v", res, err)
	}
	_, err := of(model.AgentConfig{SendS: 1})
	code(t, err, model.CodeInvalid)
}
