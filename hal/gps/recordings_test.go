package gps

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// recordings is where `make recordings` puts what Debian's source package of gpsd has: what
// dozens of receivers have said, and what gpsd makes of it.
const recordings = "../../.cache/gpsd/test/daemon"

func recorded(t testing.TB) []string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(recordings, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Skip("no recordings of receivers; `make recordings` fetches them")
	}
	return logs
}

// plotter is a recording of a chart plotter, which tells of one position with two times.
const plotter = "bundg_zeus_9.log"

// tpv is what gpsd says of a fix.
type tpv struct {
	Class  string
	Mode   int
	Time   time.Time
	Lat    *float64
	Lon    *float64
	AltMSL *float64
	Speed  *float64
	Track  *float64
	USat   *int
}

// is tells whether both are of the same place. Speed is not compared: where a receiver says
// none with a cycle, gpsd makes one of two places.
func (v tpv) is(f Fix) bool {
	near := func(a float64, b *float64, by float64) bool { return b == nil || math.IsNaN(a) || math.Abs(a-*b) <= by }
	return near(f.Lat, v.Lat, 2e-6) && near(f.Lon, v.Lon, 2e-6) && (near(f.Alt, v.AltMSL, 0.11) || f.Mode != Fix3D || v.Mode != 3)
}

// replay has a decoder hear a recording as if each cycle took a second.
func replay(log []byte, each func(Fix, Sky)) (Lines, *Decoder) {
	var lines Lines
	d := NewDecoder()
	at := time.Unix(1_700_000_000, 0)
	last := ""
	lines.Feed(log, func(s string) {
		if f := strings.Split(s, ","); len(f) > 5 && len(f[0]) == 6 {
			i := map[string]int{"GGA": 1, "RMC": 1, "GNS": 1, "GST": 1, "ZDA": 1, "GLL": 5}[f[0][3:]]
			if i > 0 && f[i] != "" && f[i] != last {
				last = f[i]
				at = at.Add(time.Second).Truncate(time.Second)
			}
		}
		at = at.Add(time.Millisecond)
		f, sky, ended, err := d.Sentence(s, at)
		if err == nil && ended {
			each(f, sky)
		}
	})
	if f, sky, ok := d.Flush(); ok {
		each(f, sky)
	}
	return lines, d
}

// TestRecordingsAsGPSDReadsThem: where gpsd tells of a time with a position, so do we, and of
// the same one.
func TestRecordingsAsGPSDReadsThem(t *testing.T) {
	matched, receivers := 0, 0
	for _, name := range recorded(t) {
		base := filepath.Base(name)
		log, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		check, err := os.Open(name + ".chk")
		if err != nil {
			continue
		}
		ours := map[string][]Fix{}
		_, dec := replay(log, func(f Fix, _ Sky) {
			if f.Mode != NoFix && !f.Time.IsZero() {
				k := f.Time.Format("15:04:05.000")
				ours[k] = append(ours[k], f)
			}
		})
		if len(ours) == 0 {
			check.Close()
			continue
		}
		if dec.Malformed > 0 && base != "tcp-torture.log" { // which has some on purpose
			t.Errorf("%s: %d sentences are malformed", base, dec.Malformed)
		}
		hits, missed := 0, 0
		s := bufio.NewScanner(check)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			var v tpv
			if !bytes.HasPrefix(s.Bytes(), []byte(`{"class":"TPV"`)) || json.Unmarshal(s.Bytes(), &v) != nil || v.Mode < 2 || v.Time.IsZero() || v.Lat == nil || v.Lon == nil {
				continue
			}
			same := ours[v.Time.Format("15:04:05.000")]
			if len(same) == 0 {
				missed++
				continue
			}
			if !slices.ContainsFunc(same, v.is) && base != plotter {
				t.Errorf("%s: gpsd says\n%s\nand we\n%+v", base, s.Text(), same)
			}
			hits++
		}
		check.Close()
		if missed > 1 {
			t.Errorf("%s: of %d fixes we have none", base, missed)
		}
		if matched += hits; hits > 0 {
			receivers++
		}
	}
	t.Logf("%d fixes of %d receivers", matched, receivers)
	if matched < 3000 || receivers < 80 {
		t.Errorf("expected 3000 fixes of 80 receivers, got %d of %d", matched, receivers)
	}
}
