package i2c_test

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/chips"
)

var clockStart = time.Date(2026, 7, 14, 13, 59, 58, 0, time.UTC)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		chip := chips.NewDS3231(clockStart, 20)
		bus.Attach(0x68, chip)
		clock := i2c.NewClock(bus, 0x68)
		if _, err := clock.Time(t.Context()); !errors.Is(err, i2c.ErrStopped) {
			t.Fatalf("expected %v of a clock that was never set, got %v", i2c.ErrStopped, err)
		}
		for _, set := range []time.Time{
			clockStart,
			time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
			time.Date(2028, 2, 29, 23, 59, 59, 0, time.UTC),
			time.Date(2199, 12, 31, 12, 0, 0, 0, time.UTC),
			time.Date(2100, 3, 1, 0, 0, 1, 0, time.FixedZone("east", 7200)),
		} {
			if err := clock.SetTime(t.Context(), set); err != nil {
				t.Fatal(err)
			}
			time.Sleep(90 * time.Second)
			got, err := clock.Time(t.Context())
			if want := set.Add(90 * time.Second); err != nil || !got.Equal(want) && want.Year() < 2200 {
				t.Errorf("expected %v, got %v, %v", want, got, err)
			}
		}
		chip.LosePower()
		if _, err := clock.Time(t.Context()); !errors.Is(err, i2c.ErrStopped) {
			t.Errorf("expected %v, got %v", i2c.ErrStopped, err)
		}
		for _, year := range []int{1999, 2200} {
			if err := clock.SetTime(t.Context(), time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC)); err == nil {
				t.Errorf("expected the year %d to be refused", year)
			}
		}
		if err := clock.SetTime(t.Context(), clockStart); err != nil {
			t.Fatal(err)
		}
		// Somebody else's clock may count twelve hours.
		if err := bus.Tx(0x68, []byte{0x02, 0x40 | 0x20 | 0x01}, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := clock.Time(t.Context()); err != nil || got.Hour() != 13 {
			t.Errorf("expected 13 h, got %v, %v", got, err)
		}
	})
}

func TestClockOfNonsense(t *testing.T) {
	for name, octets := range map[string][]byte{
		"no BCD":           {0x0a, 0x00, 0x00, 1, 0x01, 0x01, 0x26},
		"61 seconds":       {0x61, 0x00, 0x00, 1, 0x01, 0x01, 0x26},
		"25 h":             {0x00, 0x00, 0x25, 1, 0x01, 0x01, 0x26},
		"0 h of twelve":    {0x00, 0x00, 0x40, 1, 0x01, 0x01, 0x26},
		"30th of February": {0x00, 0x00, 0x00, 1, 0x30, 0x02, 0x26},
		"month 13":         {0x00, 0x00, 0x00, 1, 0x01, 0x13, 0x26},
		"all ones":         {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		bus := playback(0x68, append(io(wr(0x0f, 0x08)), wr(0x00, octets...)))
		if got, err := i2c.NewClock(bus, 0x68).Time(t.Context()); err == nil {
			t.Errorf("%s: expected an error, got %v", name, got)
		}
	}
}

func TestDistance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		chip := chips.NewVL53L0X(250)
		bus.Attach(0x29, chip)
		d := builtin(t, "vl53l0x")
		device := open(t, d, bus, 0x29, nil)
		for _, mm := range []float64{250, 30, 1999} {
			chip.Set(mm)
			same(t, readAgain(t, d, device), map[string]float64{"distance_mm": mm}, 0)
		}
		if !chip.Started() {
			t.Error("expected reference diodes to be chosen, and voltage and phase to be calibrated")
		}
		chip.Set(5000)
		same(t, readAgain(t, d, device), map[string]float64{"distance_mm": math.NaN()}, 0)
		if err := device.Send(t.Context(), nil); !errors.Is(err, i2c.ErrNoOutputs) {
			t.Errorf("expected %v, got %v", i2c.ErrNoOutputs, err)
		}
	})
}

// picture is what is lit, a character a dot.
func picture(c *chips.SSD1306, width, height int) string {
	var s strings.Builder
	for y := range height {
		for x := range width {
			if c.Lit(x, y) {
				s.WriteByte('#')
			} else {
				s.WriteByte('.')
			}
		}
		s.WriteByte('\n')
	}
	return s.String()
}

func TestDisplay(t *testing.T) {
	for _, height := range []int{64, 32} {
		t.Run(fmt.Sprint(height), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := chips.NewBus()
				chip := chips.NewSSD1306()
				bus.Attach(0x3c, chip)
				display := open(t, builtin(t, "ssd1306"), bus, 0x3c, map[string]float64{"height": float64(height)}).(i2c.Display)
				if display.Size() != image.Pt(128, height) {
					t.Errorf("got %v", display.Size())
				}
				if err := display.Show(t.Context(), []string{"HALO 21°", strings.Repeat("x", 100), "", "g"}); err != nil {
					t.Fatal(err)
				}
				want := strings.Join([]string{
					"#...#...#...#......###.........###....#....##.......",
					"#...#..#.#..#.....#...#.......#...#..##...#..#......",
					"#...#.#...#.#.....#...#...........#...#...#..#......",
					"#####.#...#.#.....#...#.........##....#....##.......",
					"#...#.#####.#.....#...#........#......#.............",
					"#...#.#...#.#.....#...#.......#.......#.............",
					"#...#.#...#.#####..###........#####..###............",
				}, "\n") + "\n"
				if got := picture(chip, 52, 7); got != want {
					t.Errorf("expected\n%sgot\n%s", want, got)
				}
				if got := picture(chip, 128, height); strings.Count(got, "#") > 1500 || chip.Lit(127, 8) {
					t.Errorf("expected noise to be gone, got\n%s", got)
				}
				if u := chip.Unknown(); len(u) > 0 {
					t.Errorf("unknown commands % x", u)
				}
			})
		})
	}
}

func TestDisplayDraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		chip := chips.NewSSD1306()
		bus.Attach(0x3d, chip)
		device := open(t, builtin(t, "ssd1306"), bus, 0x3d, nil)
		img := image.NewGray(image.Rect(-3, -5, 300, 300)) // larger, and not at the origin
		lit := func(x, y int) bool { return (x*x+y*y)%7 == 0 }
		for y := range 305 {
			for x := range 303 {
				if lit(x, y) {
					img.Set(x-3, y-5, color.White)
				}
			}
		}
		if err := device.(i2c.Display).Draw(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		for y := range 64 {
			for x := range 128 {
				if chip.Lit(x, y) != lit(x, y) {
					t.Fatalf("%d, %d: expected %v", x, y, lit(x, y))
				}
			}
		}
		before, _ := bus.Count(0x3d)
		if err := device.(i2c.Display).Draw(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		if after, _ := bus.Count(0x3d); after != before+1 {
			t.Errorf("expected the same picture to cost one transaction, got %d", after-before)
		}
		// Without power a panel is dark, and its memory noise.
		chip = chips.NewSSD1306()
		bus.Attach(0x3d, chip)
		if _, err := device.Read(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if !chip.Lit(0, 0) || chip.Lit(1, 0) {
			t.Error("expected the picture to come back")
		}
		if err := device.Send(t.Context(), map[string]float64{"on": 0}); err != nil || chip.Lit(0, 0) {
			t.Errorf("expected it to be dark, got %v", err)
		}
		if _, err := device.Read(t.Context(), nil); err != nil || chip.Lit(0, 0) {
			t.Errorf("expected it to stay dark, got %v", err)
		}
		if err := device.Send(t.Context(), map[string]float64{"on": 1, "contrast": 10}); err != nil || !chip.Lit(0, 0) {
			t.Errorf("expected it to be lit, got %v", err)
		}
		for _, bad := range []map[string]float64{{"on": 2}, {"contrast": 256}, {"colour": 1}} {
			if err := device.Send(t.Context(), bad); err == nil {
				t.Errorf("expected %v to be refused", bad)
			}
		}
	})
}

// What a display could not show it does not show once it is back.
func TestDisplayForgetsWhatHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		chip := chips.NewSSD1306()
		bus.Attach(0x3c, chip)
		display := open(t, builtin(t, "ssd1306"), bus, 0x3c, nil).(i2c.Display)
		if err := display.Show(t.Context(), []string{"before"}); err != nil {
			t.Fatal(err)
		}
		want := chip.Picture()
		bus.Detach(0x3c)
		if display.Show(t.Context(), []string{"failed"}) == nil || display.Draw(t.Context(), image.White) == nil {
			t.Error("what is not plugged in shows something")
		}
		bus.Attach(0x3c, chip)
		if _, err := display.Read(t.Context(), nil); err != nil || !slices.Equal(chip.Picture(), want) {
			t.Errorf("it shows (%v)\n%s", err, strings.Join(chip.Picture(), "\n"))
		}
	})
}

// Each character can be told from every other, and fits its cell.
func TestFont(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		chip := chips.NewSSD1306()
		bus.Attach(0x3c, chip)
		display := open(t, builtin(t, "ssd1306"), bus, 0x3c, nil).(i2c.Display)
		seen := map[string]rune{}
		for c := ' '; c <= '~'; c++ {
			if err := display.Show(t.Context(), []string{string(c)}); err != nil {
				t.Fatal(err)
			}
			dots := picture(chip, 6, 8)
			if other, ok := seen[dots]; ok {
				t.Errorf("%q looks like %q", c, other)
			}
			seen[dots] = c
			if c > ' ' && !strings.Contains(dots, "#") {
				t.Errorf("%q is empty", c)
			}
		}
	})
}
