package nmea

import (
	"bufio"
	"math"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gonmea "github.com/adrianmo/go-nmea"
)

// The checksum of a sentence that receivers' manuals show.
func TestSentence(t *testing.T) {
	for body, want := range map[string]string{
		"GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,":    "*47\r\n",
		"GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W": "*6A\r\n",
	} {
		if got := Sentence(body); got != "$"+body+want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDegrees(t *testing.T) {
	for _, tc := range []struct {
		v      float64
		digits int
		want   string
	}{
		{48.1173, 2, "4807.03800,P"}, {-11.5166666667, 3, "01131.00000,N"}, {0, 3, "00000.00000,P"},
		{9.99999999999, 2, "1000.00000,P"}, {179.9999, 3, "17959.99400,P"},
	} {
		if got := degrees(tc.v, tc.digits, "P", "N"); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.v, got, tc.want)
		}
	}
}

// fields reads a position back by hand.
func position(t *testing.T, f []string) (lat, lon float64) {
	t.Helper()
	angle := func(s string, digits int) float64 {
		d, err1 := strconv.Atoi(s[:digits])
		m, err2 := strconv.ParseFloat(s[digits:], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("no angle: %q", s)
		}
		return float64(d) + m/60
	}
	return angle(f[0], 2), angle(f[2], 3)
}

func TestWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)))
		r := New()
		near, far := net.Pipe()
		go r.Serve(t.Context(), far)
		lines := bufio.NewScanner(near)
		start := r.Status()
		kinds := map[string]int{}
		var lat, lon float64
		for kinds["GNRMC"] < 60 && lines.Scan() {
			line := lines.Text()
			if _, err := gonmea.Parse(line); err != nil {
				t.Errorf("%s: %v", line, err)
			}
			f := strings.Split(strings.TrimPrefix(line, "$"), ",")
			if body, _, _ := strings.Cut(line[1:], "*"); Sentence(body) != line+"\n" && Sentence(body) != line+"\r\n" {
				t.Fatalf("checksum of %q", line)
			}
			if len(line) > 80 {
				t.Errorf("%d characters: %s", len(line), line)
			}
			if f[0] == "GNRMC" {
				lat, lon = position(t, f[3:])
				want := time.Date(2026, 11, 30, 12, 0, kinds["GNRMC"], 0, time.UTC).Format("150405.00")
				if f[1] != want || f[2] != "A" || f[9] != "301126" {
					t.Errorf("expected %s, got %q", want, line)
				}
			}
			kinds[f[0]]++
		}
		// A third of a circle of 28.6 m after a minute.
		north, east := (lat-start.Lat)*earth, (lon-start.Lon)*earth*math.Cos(lat*math.Pi/180)
		if d := math.Hypot(north, east); d < 45 || d > 54 {
			t.Errorf("after a minute it is %.1f m away", d)
		}
		if kinds["GNGGA"] < 59 || kinds["GPGSV"] < 118 || kinds["GLGSV"] < 59 || kinds["GNGSA"] < 118 {
			t.Errorf("sentences: %v", kinds)
		}
		near.Close()
	})
}

func TestFaults(t *testing.T) {
	r := New()
	apply := func(c Change) {
		t.Helper()
		if err := r.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	none, on, off := NoFix, true, false
	apply(Change{Fix: &none})
	if text := string(r.epoch(time.Now())); !strings.Contains(text, ",V,,,,,,,") || !strings.Contains(text, "GNGSA,A,1,") {
		t.Errorf("without a fix: %s", text)
	}
	apply(Change{Noise: &on})
	if text := string(r.epoch(time.Now())); len(text) < 64 || strings.Contains(text, "GNRMC") {
		t.Errorf("noise: %q", text)
	}
	apply(Change{Noise: &off, Silent: &on})
	if text := r.epoch(time.Now()); text != nil {
		t.Errorf("silent: %q", text)
	}
	before := r.Status()
	for _, lat := range []float64{91, math.NaN(), math.Inf(-1)} {
		if err := r.Apply(Change{Silent: &off, Lat: &lat}); err == nil {
			t.Errorf("a latitude of %v is taken", lat)
		}
	}
	if after := r.Status(); after.Silent != before.Silent || after.Fix != before.Fix {
		t.Errorf("a change that is refused has changed something: %+v", after)
	}
}

// A receiver goes around the world and over a pole without leaving it.
func TestWalkStaysOnEarth(t *testing.T) {
	r := New()
	lat, lon, speed, course, turn := 89.9, 179.9, 500.0, 45.0, 0.0
	if err := r.Apply(Change{Lat: &lat, Lon: &lon, Speed: &speed, Course: &course, Turn: &turn}); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	for range 1000 {
		at = at.Add(time.Second)
		r.walk(at)
		if s := r.s; math.Abs(s.Lat) > 90 || math.Abs(s.Lon) > 180 {
			t.Fatalf("at %v, %v", s.Lat, s.Lon)
		}
	}
}

// Nobody who reads late gets what was long ago.
func TestNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		near, far := net.Pipe()
		go r.Serve(t.Context(), far)
		time.Sleep(10500 * time.Millisecond)
		if s := r.Status(); s.Dropped < 9 {
			t.Errorf("status %+v", s)
		}
		near.Close()
		synctest.Wait()
	})
}
