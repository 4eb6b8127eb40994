package commands_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"halo.internal/agent/command"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

var scan = model.Command{Kind: model.CommandScan}

// A command goes to the node and its result comes back; what the node cannot do it
// says, both before and when it is asked all the same.
func TestANodeDoesWhatItIsAskedFor(t *testing.T) {
	s := newSite(t)
	var done counter
	frames := bytes.Repeat([]byte("frame"), 40_000) // 200 kB: in parts
	b := s.board(map[model.CommandKind]command.Action{
		model.CommandScan: {Do: func(_ context.Context, task *command.Task) (command.Result, error) {
			done.add("scan %s by %s", task.Scan.Radio, task.By)
			return command.Result{Value: model.RadioScan{Radio: task.Scan.Radio, Networks: []model.RadioNetwork{{Name: "ETHRX"}}}}, nil
		}},
		model.CommandCapture: {Do: func(context.Context, *command.Task) (command.Result, error) {
			return command.Result{File: frames}, nil
		}},
		model.CommandLocate: {Able: func() error { return model.RefuseCommand(model.CodeNoLED, "none") }},
		model.CommandRestart: {Do: func(context.Context, *command.Task) (command.Result, error) {
			return command.Result{}, model.RefuseCommand(model.CodeNoComponent, "not here")
		}},
		model.CommandConfig: {Do: func(context.Context, *command.Task) (command.Result, error) {
			return command.Result{}, errors.New("disk on fire")
		}},
	})
	b.power()
	b.there()

	j := s.ends(b.give(model.Command{Kind: model.CommandScan, Scan: &model.ScanRequest{Radio: "phy0"}}).ID, apitype.JobDone, "")
	var got model.RadioScan
	if err := json.Unmarshal(j.Result, &got); err != nil || len(got.Networks) != 1 || done.all() != "scan phy0 by user:root" {
		t.Errorf("got %s, %v; done: %s", j.Result, err, done.all())
	}
	if j.Started == nil || j.Progress != 100 || j.By != "user:root" || j.Node != b.id() {
		t.Errorf("got %+v", j)
	}
	j = s.ends(b.give(model.Command{Kind: model.CommandCapture}).ID, apitype.JobDone, "")
	if _, file, err := s.jobs.File(t.Context(), j.ID); err != nil || !bytes.Equal(file, frames) || j.File.Type != "application/vnd.tcpdump.pcap" {
		t.Errorf("a file of %d octets, %+v, %v", len(file), j.File, err)
	}
	s.ends(b.give(model.Command{Kind: model.CommandRestart, Restart: &model.RestartCommand{Component: "halo-field"}}).ID, apitype.JobRefused, model.CodeNoComponent)
	s.ends(b.give(model.Command{Kind: model.CommandConfig}).ID, apitype.JobFailed, model.CodeFailed)

	for kind, code := range map[model.CommandKind]string{model.CommandLocate: model.CodeNoLED, model.CommandSetOutput: model.CodeUnsupported} {
		c := model.Command{Kind: kind}
		if kind == model.CommandSetOutput {
			c.Output = &model.OutputCommand{Output: "siren"}
		}
		_, err := b.try(c, 0)
		if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Type != apitype.ProblemNodeCannot || !strings.Contains(p.Detail, code) {
			t.Errorf("%s: got %v, want %s", kind, err, code)
		}
	}
	list, known, online := s.commands.Abilities(b.id())
	if !known || !online || len(list) != len(model.CommandKinds()) {
		t.Errorf("abilities %+v, %v, %v", list, known, online)
	}
	zero := int64(0)
	s.until("the events", func() bool {
		ended, _, err := s.log.List(t.Context(), events.Query{Kind: "node.command-ended", Since: &zero, Limit: 10})
		begun, _, err2 := s.log.List(t.Context(), events.Query{Kind: "agent.command.begun", Node: b.id(), Since: &zero, Limit: 10})
		return err == nil && err2 == nil && len(ended) == 4 && len(begun) == 4 && ended[3].Severity == model.Warning && ended[0].Fields["by"] == "user:root"
	})
}

// A node that is off gets its commands when it comes, in their order, or never, when
// their time is over.
func TestCommandsWaitForANodeThatIsOff(t *testing.T) {
	s := newSite(t)
	var done counter
	b := s.board(map[model.CommandKind]command.Action{
		model.CommandScan: {Many: true, Do: func(_ context.Context, task *command.Task) (command.Result, error) {
			done.add("%s", task.Scan.Radio)
			return command.Result{}, nil
		}},
	})
	of := func(radio string) model.Command {
		return model.Command{Kind: model.CommandScan, Scan: &model.ScanRequest{Radio: radio}}
	}
	first := b.give(of("a"))
	brief, err := b.try(of("b"), 30*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	back := b.give(of("c"))
	if j, err := s.jobs.Cancel(t.Context(), back.ID); err != nil || j.State != apitype.JobCancelled {
		t.Errorf("taken back: %+v, %v", j, err)
	}
	s.ends(brief.ID, apitype.JobExpired, model.CodeExpired)
	if first.State != apitype.JobQueued || first.Expires == nil {
		t.Errorf("got %+v", first)
	}
	b.power()
	s.ends(first.ID, apitype.JobDone, "")
	if got := done.all(); got != "a" {
		t.Errorf("done: %s", got)
	}
}

// Connections break, agents and gateways are killed, at any instant: each command is
// executed at most once, and the gateway hears how each has ended.
func TestAtMostOnceWhateverBreaks(t *testing.T) {
	s := newSite(t)
	var done counter
	b := s.board(map[model.CommandKind]command.Action{
		model.CommandScan: {Many: true, Do: func(ctx context.Context, task *command.Task) (command.Result, error) {
			done.add("%s", task.Scan.Radio)
			select {
			case <-ctx.Done():
				return command.Result{}, ctx.Err()
			case <-time.After(time.Duration(rand.IntN(30)) * time.Millisecond):
			}
			return command.Result{Value: task.Scan.Radio}, nil
		}},
	})
	b.power()
	var given []int64
	for i := range 24 {
		j := b.give(model.Command{Kind: model.CommandScan, Scan: &model.ScanRequest{Radio: fmt.Sprint("r", i)}})
		given = append(given, j.ID)
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		switch i % 6 {
		case 1:
			b.process()
		case 3:
			s.restart()
		case 5:
			b.power()
		}
	}
	executed := map[string]int{}
	for i, id := range given {
		var j apitype.Job
		s.until("an end", func() bool { j, _ = s.jobs.Wait(t.Context(), id, time.Second); return j.Final() })
		radio := fmt.Sprint("r", i)
		executed[radio] = strings.Count(done.all()+" ", radio+" ")
		if executed[radio] > 1 {
			t.Errorf("%s was executed %d times", radio, executed[radio])
		}
		switch {
		case j.State == apitype.JobDone && executed[radio] == 1 && string(j.Result) == fmt.Sprintf("%q", radio):
		case j.State == apitype.JobFailed && j.Code == model.CodeInterrupted && executed[radio] <= 1:
		case j.State == apitype.JobRefused && j.Code == model.CodeBusy && executed[radio] == 0:
		default:
			t.Errorf("%s: %s %q %q, executed %d times, result %s", radio, j.State, j.Code, j.Message, executed[radio], j.Result)
		}
	}
}

// A reboot is done when the machine has started again, not before, and once.
func TestRebootIsDoneWhenTheMachineIsBack(t *testing.T) {
	s := newSite(t)
	var done counter
	b := s.board(nil)
	asked := make(chan struct{}, 4)
	b.actions = map[model.CommandKind]command.Action{model.CommandReboot: {
		Firm: true,
		Do: func(ctx context.Context, task *command.Task) (command.Result, error) {
			if !task.Told(ctx) || !task.Lasts {
				t.Error("the gateway does not know, or it is not on the card")
			}
			done.add("reboot")
			asked <- struct{}{}
			<-ctx.Done()
			return command.Result{}, ctx.Err()
		},
		After: func(e command.Entry, boot uint64) (model.CommandState, string) {
			if boot > e.Boot {
				return model.CommandDone, "started"
			}
			return model.CommandFailed, "it went on"
		},
	}}
	b.power()
	j := b.give(model.Command{Kind: model.CommandReboot})
	<-asked
	if got, err := s.jobs.Cancel(t.Context(), j.ID); err != nil || got.State != apitype.JobRunning || !got.Cancelled {
		t.Errorf("a reboot that is under way was taken back: %+v, %v", got, err)
	}
	s.restart() // the gateway goes as well
	b.power()
	if got := s.ends(j.ID, apitype.JobDone, ""); got.Message != "started" {
		t.Errorf("got %+v", got)
	}
	j = b.give(model.Command{Kind: model.CommandReboot})
	<-asked
	b.process() // the agent alone
	s.ends(j.ID, apitype.JobFailed, model.CodeInterrupted)
	if got := done.all(); got != "reboot reboot" {
		t.Errorf("done: %s", got)
	}
}

// Where nothing lasts, a reboot would come back with the machine, if the gateway had
// not heard of it.
func TestWithoutACardNothingIsDoneTwice(t *testing.T) {
	s := newSite(t)
	var done counter
	b := s.board(map[model.CommandKind]command.Action{model.CommandReboot: {Do: func(ctx context.Context, task *command.Task) (command.Result, error) {
		if !task.Told(ctx) && !task.Lasts {
			return command.Result{}, model.RefuseCommand(model.CodeUnkept, "")
		}
		done.add("reboot")
		<-ctx.Done()
		return command.Result{}, ctx.Err()
	}}})
	b.keeps.Store(false)
	b.power()
	j := b.give(model.Command{Kind: model.CommandReboot})
	s.until("the reboot", func() bool { return done.all() != "" })
	if err := os.RemoveAll(b.perm); err != nil { // it was RAM
		t.Fatal(err)
	}
	for range 3 {
		b.power()
		b.there()
	}
	time.Sleep(50 * time.Millisecond)
	if got := done.all(); got != "reboot" {
		t.Errorf("done: %s", got)
	}
	if j, err := s.jobs.Get(t.Context(), j.ID); err != nil || j.State != apitype.JobRunning {
		t.Errorf("got %+v, %v: the gateway waits for a word, and gives up in time", j, err)
	}
}

func TestACommandThatRunsIsTakenBack(t *testing.T) {
	s := newSite(t)
	running := make(chan struct{}, 1)
	b := s.board(map[model.CommandKind]command.Action{model.CommandLocate: {Do: func(ctx context.Context, task *command.Task) (command.Result, error) {
		task.Progress(30, "it blinks")
		running <- struct{}{}
		<-ctx.Done()
		return command.Result{}, ctx.Err()
	}}})
	b.power()
	j := b.give(model.Command{Kind: model.CommandLocate})
	<-running
	s.until("that it runs", func() bool {
		now, err := s.jobs.Get(t.Context(), j.ID)
		return err == nil && now.State == apitype.JobRunning && now.Progress == 30 && now.Message == "it blinks"
	})
	second := b.give(model.Command{Kind: model.CommandLocate}) // one of a kind after the other
	time.Sleep(20 * time.Millisecond)
	if now, err := s.jobs.Get(t.Context(), second.ID); err != nil || now.State != apitype.JobQueued {
		t.Errorf("a second one, while the first is under way: %+v, %v", now, err)
	}
	if _, err := s.jobs.Cancel(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	s.ends(j.ID, apitype.JobCancelled, "")
	<-running
	if _, err := s.jobs.Cancel(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	s.ends(second.ID, apitype.JobCancelled, "")
}

// A gateway from an old card, which has the key and a lower epoch, is not obeyed; nor
// is one whose epoch is lower than that of an order that was obeyed.
func TestAnOldGatewayIsNotObeyed(t *testing.T) {
	s := newSite(t)
	var done counter
	b := s.board(map[model.CommandKind]command.Action{model.CommandScan: {Do: func(context.Context, *command.Task) (command.Result, error) {
		done.add("scan")
		return command.Result{}, nil
	}}})
	b.power()
	b.epoch.Store(40_001) // as halo-mesh has heard
	s.ends(b.give(scan).ID, apitype.JobRefused, model.CodeEpoch)
	s.epoch.Store(40_002)
	s.ends(b.give(scan).ID, apitype.JobDone, "")
	s.epoch.Store(40_001)
	s.ends(b.give(scan).ID, apitype.JobRefused, model.CodeEpoch)
	b.process() // it is remembered
	s.ends(b.give(scan).ID, apitype.JobRefused, model.CodeEpoch)
	if got := done.all(); got != "scan" {
		t.Errorf("done: %s", got)
	}
	zero := int64(0)
	s.until("the event", func() bool {
		list, _, err := s.log.List(t.Context(), events.Query{Kind: "agent.command.refused", Since: &zero, Limit: 10})
		return err == nil && len(list) == 2 && list[0].Fields["reason"] == model.CodeEpoch && list[0].Source == b.id() // one for each process
	})
}

// A gateway that does not know the time does not hand over what waited while it was
// off: that may be days ago.
func TestWhatWaitedIsHeldUntilTheTimeIsKnown(t *testing.T) {
	s := newSite(t)
	var done counter
	b := s.board(map[model.CommandKind]command.Action{model.CommandScan: {Many: true, Do: func(context.Context, *command.Task) (command.Result, error) {
		done.add("scan")
		return command.Result{}, nil
	}}})
	j := b.give(scan)
	none := model.ClockNone
	s.now.Store(&none)
	s.restart()
	b.power()
	b.there()
	fresh := b.give(scan) // made in this start: its time is counted
	s.ends(fresh.ID, apitype.JobDone, "")
	if got, err := s.jobs.Get(t.Context(), j.ID); err != nil || got.State != apitype.JobQueued || !strings.Contains(got.Message, "the time") || done.all() != "scan" {
		t.Errorf("got %+v, %v, done %s", got, err, done.all())
	}
	s.clock.SetQuality(model.ClockLogin)
	s.ends(j.ID, apitype.JobDone, "")
}

func TestANodesQueueIsBounded(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	var last error
	n := 0
	for ; n < 100 && last == nil; n++ {
		_, last = b.try(scan, 0)
	}
	p, ok := errors.AsType[*apitype.Problem](last)
	if !ok || p.Status != 429 || n != 33 {
		t.Errorf("the %d. was answered by %v", n, last)
	}
	other := s.board(nil)
	if _, err := other.try(scan, 0); err != nil {
		t.Errorf("another node: %v", err)
	}
	s.commands.Drop(b.id())
	list, _, err := s.jobs.List(t.Context(), jobsOf(b.id()))
	if err != nil || len(list) != 32 {
		t.Fatalf("%d jobs, %v", len(list), err)
	}
	for _, j := range list {
		if j.State != apitype.JobCancelled {
			t.Errorf("after the node was revoked: %+v", j)
		}
	}
}

func TestBadCommandsAreRefusedAtOnce(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	for _, c := range []model.Command{{Kind: "shell"}, {Kind: model.CommandRestart}, {Kind: model.CommandReboot, Locate: &model.LocateCommand{}}} {
		_, err := b.try(c, 0)
		if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != 422 {
			t.Errorf("%s: got %v", c.Kind, err)
		}
	}
	if _, err := s.registry.Revoke(t.Context(), b.id(), etag.Match{}); err != nil {
		t.Fatal(err)
	}
	_, err := b.try(scan, 0)
	if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != 409 {
		t.Errorf("a revoked node: got %v", err)
	}
}
