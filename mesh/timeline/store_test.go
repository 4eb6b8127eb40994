package timeline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
)

func over(n int) model.Recovery {
	return model.Recovery{Boot: 7, Cause: model.CauseBroken, State: model.RecoveryOver, BeganMS: int64(n) * 1000, Stages: []model.RecoveryMark{}}
}

// TestTheBudgetOfWrites: a link that breaks and heals each ten minutes, all day.
func TestTheBudgetOfWrites(t *testing.T) {
	ram, writes := filepath.Join(t.TempDir(), "timeline.json"), []string{}
	s := NewStore(ram, func(b []byte) error { writes = append(writes, string(b)); return nil })
	var list []model.Recovery
	for n := range 24 * 6 {
		if list = append(list, over(n)); len(list) > Kept {
			list = list[1:]
		}
		if err := s.Keep(time.Duration(n)*10*time.Minute, list, true, false); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(writes); n < 40 || n > burst+48 {
		t.Errorf("%d writes in a day", n)
	}
	last, err := Parse([]byte(writes[len(writes)-1]))
	if err != nil || len(last) != Kept || len(writes[len(writes)-1]) > 32<<10 {
		t.Errorf("the last write has %d recoveries in %d octets, %v", len(last), len(writes[len(writes)-1]), err)
	}
	before := len(writes)
	for n := range 48 { // nothing happens any more: what is due is written, once
		if err := s.Keep(24*time.Hour+time.Duration(n)*another, list, false, false); err != nil {
			t.Fatal(err)
		}
	}
	if len(writes) > before+1 {
		t.Errorf("%d writes of what had not changed", len(writes)-before)
	}
	if b, err := os.ReadFile(ram); err != nil || string(b) != writes[len(writes)-1] {
		t.Errorf("RAM and card differ: %v", err)
	}
}

// TestACardThatTakesNothingForAWhile is told as soon as it does, within the budget, without
// another recovery.
func TestACardThatTakesNothingForAWhile(t *testing.T) {
	tries, works := 0, false
	var has string
	s := NewStore(filepath.Join(t.TempDir(), "timeline.json"), func(b []byte) error {
		if tries++; !works {
			return errors.New("read-only file system")
		}
		has = string(b)
		return nil
	})
	list := []model.Recovery{over(0)}
	keep := func(from, to time.Duration) {
		for now := from; now < to; now += 5 * time.Second {
			_ = s.Keep(now, list, now == 0, false) // an error is told once
		}
	}
	keep(0, 6*time.Hour)
	if most := burst + int(6*time.Hour/another); tries < 2 || tries > most {
		t.Errorf("%d tries in six hours, want some, and at most %d", tries, most)
	}
	works, tries = true, 0
	keep(6*time.Hour, 8*time.Hour)
	want, err := Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	if has != string(want) || tries != 1 {
		t.Errorf("once it works the card was written %d times, and has %q", tries, has)
	}
}

// TestWhatLasts is written once it has lasted, and when the process ends.
func TestWhatLasts(t *testing.T) {
	writes := 0
	s := NewStore(filepath.Join(t.TempDir(), "timeline.json"), func([]byte) error { writes++; return nil })
	lasting := over(0)
	lasting.State = model.RecoveryLasts
	for n := range 200 {
		if err := s.Keep(time.Duration(n)*time.Minute, []model.Recovery{lasting}, false, false); err != nil {
			t.Fatal(err)
		}
		if want := min(n/10, 1); writes != want {
			t.Fatalf("after %d minutes: %d writes, want %d", n, writes, want)
		}
	}
	if err := s.Keep(200*time.Minute, []model.Recovery{lasting}, false, true); err != nil || writes != 2 {
		t.Errorf("at the end: %d writes, %v", writes, err)
	}
	if err := s.Keep(201*time.Minute, []model.Recovery{over(0)}, false, true); err != nil || writes != 2 {
		t.Errorf("at an end with nothing new: %d writes, %v", writes, err)
	}
}

func TestLoad(t *testing.T) {
	card, err := Marshal([]model.Recovery{over(1)})
	if err != nil {
		t.Fatal(err)
	}
	ram, err := Marshal([]model.Recovery{over(1), over(2)})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		ram, card []byte
		kept      int
		restarted bool
		damaged   bool
	}{
		"a first start":        {nil, nil, 0, false, false},
		"a start":              {nil, card, 1, false, false},
		"a restart":            {ram, card, 2, true, false},
		"without a card":       {ram, nil, 2, true, false},
		"RAM is damaged":       {ram[:20], card, 1, false, true},
		"the card is damaged":  {nil, card[:20], 0, false, true},
		"RAM has what is long": {[]byte(strings.Repeat(" ", maxFile+1)), card, 1, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "timeline.json")
			if tc.ram != nil {
				if err := os.WriteFile(path, tc.ram, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			kept, restarted, err := NewStore(path, nil).Load(tc.card)
			if len(kept) != tc.kept || restarted != tc.restarted || (err != nil) != tc.damaged {
				t.Errorf("got %d, %v, %v", len(kept), restarted, err)
			}
		})
	}
}

// TestErrorsAreToldOnce, though what fails is tried again.
func TestErrorsAreToldOnce(t *testing.T) {
	full := errors.New("no space left on device")
	s := NewStore(filepath.Join(t.TempDir(), "no", "timeline.json"), func([]byte) error { return full })
	if err := s.Keep(0, []model.Recovery{over(1)}, true, false); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	told := 0
	for n := range 5 {
		if s.Keep(time.Duration(n+1)*time.Hour, []model.Recovery{over(1)}, true, false) != nil {
			told++
		}
	}
	if told > 1 {
		t.Errorf("told %d times", told)
	}
}

func TestParseRefuses(t *testing.T) {
	lasting := over(1)
	lasting.State = model.RecoveryLasts
	long := over(1)
	long.Detail = strings.Repeat("x", maxText+1)
	many := over(1)
	many.Steps = make([]model.RecoveryMark, maxSteps+1)
	early := over(1)
	early.Stages = []model.RecoveryMark{{MS: -1}}
	strange := over(1)
	strange.Cause = "boredom"
	halted := over(1)
	halted.State = "halted"
	for name, list := range map[string][]model.Recovery{
		"too many": make([]model.Recovery, Kept+1), "one that lasts is not the last": {lasting, over(2)}, "a long text": {long},
		"many steps": {many}, "a stage before the beginning": {early}, "a strange cause": {strange}, "a strange state": {halted},
	} {
		b, err := Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, text := range []string{"", "{}", "[", "null x"} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	lasting := over(2)
	lasting.State, lasting.Stages = model.RecoveryLasts, []model.RecoveryMark{{MS: 3, Name: "peer"}}
	b, err := Marshal([]model.Recovery{over(1), lasting})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("[]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := Parse(b)
		if err != nil {
			return
		}
		r := New(9, list, false, time.Second, wall)
		r.Look(2*time.Second, whole(0))
		r.Look(3*time.Second, whole(1))
		text, err := Marshal(r.List(3 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(text); err != nil {
			t.Fatalf("what was read makes a file that is not: %v", err)
		}
	})
}
