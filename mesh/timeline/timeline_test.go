package timeline

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
)

// noon is the device's clock; at is the time since the kernel started.
var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func wall() (time.Time, model.ClockQuality) { return noon, model.ClockGateway }

// upTo are facts of a chain that works up to a stage, all before it too.
func upTo(stage model.RecoveryStage, broken string, acked uint64) Facts {
	f := Facts{Broken: broken, Detail: broken + " is broken", Reached: map[model.RecoveryStage]bool{}, Acked: acked}
	for _, s := range model.RecoveryStages {
		f.Reached[s] = true
		if s == stage {
			break
		}
	}
	if stage == model.StageTelemetry {
		f.Whole, f.Broken, f.Detail = true, "", ""
	}
	return f
}

func whole(acked uint64) Facts { return upTo(model.StageTelemetry, "", acked) }

// marks writes stages or steps as "name ms".
func marks(list []model.RecoveryMark) string {
	var s []string
	for _, m := range list {
		s = append(s, fmt.Sprintf("%s %d", m.Name, m.MS))
	}
	return strings.Join(s, ", ")
}

const second = time.Second

// started is a recorder of a machine that was whole after 20 s.
func started(t *testing.T) *Recorder {
	t.Helper()
	r := New(7, nil, false, 4*second, wall)
	for _, l := range []struct {
		at time.Duration
		f  Facts
	}{
		{4 * second, Facts{Broken: "bat0"}},
		{5 * second, upTo(model.StageAddress, "driver", 0)},
		{6 * second, upTo(model.StageMesh, "peers", 0)},
		{8 * second, upTo(model.StageOriginator, "gateway", 0)},
		{9 * second, upTo(model.StageMesh, "peers", 0)}, // it was not to stay
		{11 * second, upTo(model.StageOriginator, "gateway", 0)},
		{12 * second, upTo(model.StageOverlay, "telemetry", 0)},
		{14 * second, whole(0)}, // the stream is up; nothing is acknowledged yet
		{19 * second, whole(0)},
	} {
		if r.Look(l.at, l.f) {
			t.Fatalf("it ended at %s", l.at)
		}
	}
	if !r.Look(20*second, whole(1)) {
		t.Fatal("it did not end")
	}
	return r
}

func TestAStartOfTheMachine(t *testing.T) {
	list := started(t).List(20 * second)
	if len(list) != 1 {
		t.Fatalf("got %+v", list)
	}
	c := list[0]
	if c.Boot != 7 || c.Cause != model.CausePowerOn || c.State != model.RecoveryOver || c.BeganMS != 0 || c.TotalMS != 20000 || c.Missing != "" || !c.Began.Equal(noon.Add(-20*second)) || c.Clock != model.ClockGateway {
		t.Errorf("got %+v", c)
	}
	if got, want := marks(c.Stages), "address 5000, driver 6000, interface 6000, mesh 6000, peer 11000, originator 11000, gateway 12000, join 12000, overlay 12000, telemetry 20000"; got != want {
		t.Errorf("stages\n%s, want\n%s", got, want)
	}
}

func TestALinkThatBreaks(t *testing.T) {
	r := started(t)
	if r.Look(100*second, whole(2)) || len(r.List(100*second)) != 1 {
		t.Fatal("nothing broke")
	}
	if _, lasts := r.Lasting(100 * second); lasts {
		t.Fatal("nothing broke, and lasts")
	}
	r.Look(200*second, upTo(model.StageMesh, "peers", 2))
	r.Step(230*second, "restart", "radio phy0 leaves the mesh and joins it anew")
	r.Look(231*second, upTo(model.StageDriver, "interface", 2))
	list := r.List(231 * second)
	if c := list[1]; c.State != model.RecoveryLasts || c.Cause != model.CauseBroken || c.Check != "peers" || c.Detail != "peers is broken" || c.Missing != "interface" || c.BeganMS != 200000 || marks(c.Stages) != "" {
		t.Errorf("while it lasts: %+v", c)
	}
	r.Look(232*second, upTo(model.StageMesh, "peers", 2))
	r.Look(235*second, upTo(model.StageOverlay, "telemetry", 2))
	if !r.Look(240*second, whole(3)) {
		t.Fatal("it did not end")
	}
	c := r.List(250 * second)[1]
	if got, want := marks(c.Stages), "interface 32000, mesh 32000, peer 35000, originator 35000, gateway 35000, join 35000, overlay 35000, telemetry 40000"; got != want || marks(c.Steps) != "restart 30000" || c.TotalMS != 40000 {
		t.Errorf("got %s; %s; %d ms, want %s", got, marks(c.Steps), c.TotalMS, want)
	}
}

// TestABlipIsNone, though telemetry takes its time to say so.
func TestABlipIsNone(t *testing.T) {
	r := started(t)
	r.Look(100*second, upTo(model.StageMesh, "peers", 5))
	r.Look(103*second, whole(5))
	if r.Look(150*second, whole(6)) || len(r.List(150*second)) != 1 {
		t.Errorf("got %+v", r.List(150*second))
	}
	r.Look(200*second, upTo(model.StageMesh, "peers", 6))
	r.Step(201*second, "crash", "firmware")
	r.Look(203*second, whole(6))
	if !r.Look(250*second, whole(7)) || len(r.List(250*second)) != 2 {
		t.Errorf("something was done: got %+v", r.List(250*second))
	}
}

// TestAcknowledgementsOfBefore are no proof that telemetry flows again.
func TestAcknowledgementsOfBefore(t *testing.T) {
	r := started(t)
	r.Look(100*second, upTo(model.StageJoin, "overlay", 5))
	r.Look(110*second, upTo(model.StageJoin, "overlay", 8)) // the last ones were on their way
	if r.Look(120*second, whole(8)) {
		t.Error("ended without a new acknowledgement")
	}
	if r.Look(130*second, whole(0)) { // halo-agent was restarted and counts anew
		t.Error("ended by a restart of halo-agent")
	}
	if !r.Look(140*second, whole(1)) {
		t.Error("did not end")
	}
}

func TestAcrossRestarts(t *testing.T) {
	r := started(t)
	r.Look(100*second, upTo(model.StageMesh, "peers", 5))
	kept := r.List(110 * second)

	again := New(7, kept, true, 115*second, wall) // the process, in the midst of it
	again.Look(116*second, upTo(model.StageMesh, "peers", 0))
	if list := again.List(116 * second); len(list) != 2 || list[1].Check != "peers" || list[1].State != model.RecoveryLasts || marks(list[1].Steps) != "restart 15000" {
		t.Errorf("in the midst of it: %+v", list)
	}

	calm := New(7, kept[:1], true, 115*second, wall) // the process, while all was well
	if list := calm.List(116 * second); len(list) != 2 || list[1].Cause != model.CauseRestart || list[1].BeganMS != 115000 {
		t.Errorf("while all was well: %+v", list)
	}

	next := New(8, kept, false, 3*second, wall) // the machine
	if list := next.List(3 * second); len(list) != 3 || list[1].State != model.RecoveryCut || list[2].Cause != model.CausePowerOn || list[2].Boot != 8 || list[2].BeganMS != 0 {
		t.Errorf("the machine: %+v", list)
	}
}

// TestAnyLife holds what is kept to its bounds, whatever is seen and done.
func TestAnyLife(t *testing.T) {
	for seed := range uint64(12) {
		random := rand.New(rand.NewPCG(seed, 1))
		now, acked, boot := 3*second, uint64(0), uint64(1)
		r := New(boot, nil, false, now, wall)
		ended := 0
		for range 120 {
			now += time.Duration(random.IntN(20_000)) * time.Millisecond
			switch random.IntN(12) {
			case 0:
				r.Step(now, strings.Repeat("ö", random.IntN(300)), strings.Repeat("€\xff", random.IntN(300)))
			case 1:
				restarted := random.IntN(2) == 0
				kept := r.List(now)
				if !restarted {
					boot, now = boot+1, 3*second
				}
				r = New(boot, kept, restarted, now, wall)
				acked = 0
			}
			stage := model.RecoveryStages[random.IntN(len(model.RecoveryStages))]
			if random.IntN(3) > 0 {
				stage = model.StageTelemetry
			}
			acked += uint64(random.IntN(2))
			if r.Look(now, upTo(stage, strings.Repeat("x", random.IntN(300)), acked)) {
				ended++
			}
			list := r.List(now)
			text, err := Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			back, err := Parse(text)
			if err != nil || len(back) != len(list) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for _, c := range back {
				if !slices.IsSortedFunc(c.Steps, func(a, b model.RecoveryMark) int { return int(a.MS - b.MS) }) || c.State == model.RecoveryOver && c.TotalMS < 0 {
					t.Fatalf("seed %d: %+v", seed, c)
				}
			}
		}
		if ended == 0 {
			t.Errorf("seed %d: no recovery ended", seed)
		}
	}
}
