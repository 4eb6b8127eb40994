package gps

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sentence adds the checksum.
func sentence(s string) string {
	var x byte
	for i := range len(s) {
		x ^= s[i]
	}
	return fmt.Sprintf("$%s*%02X", s, x)
}

// cycleOf is what a receiver of three constellations says of a second, made by the tables of
// NMEA 0183 4.10.
func cycleOf(t time.Time, lat, lon string) []string {
	at, date := t.Format("150405.00"), t.Format("020106")
	var out []string
	for _, s := range []string{
		"GNRMC," + at + ",A," + lat + ",N," + lon + ",E,1.94,45.0," + date + ",,,A,V",
		"GNGGA," + at + "," + lat + ",N," + lon + ",E,1,11,0.80,520.5,M,47.0,M,,",
		"GNGSA,A,3,01,03,22,31,,,,,,,,,1.50,0.80,1.30,1",
		"GNGSA,A,3,65,72,,,,,,,,,,,1.50,0.80,1.30,2",
		"GNGSA,A,3,02,08,11,,,,,,,,,,1.50,0.80,1.30,3",
		"GPGSV,2,1,05,01,40,083,46,03,17,308,41,22,07,344,39,31,80,010,,1",
		"GPGSV,2,2,05,40,20,150,,1",
		"GLGSV,1,1,02,65,30,100,35,72,60,200,,1",
		"GAGSV,1,1,03,02,10,020,30,08,20,030,31,11,30,040,32,7",
		"GNGST," + at + ",12.0,,,,1.5,2.0,3.5",
	} {
		out = append(out, sentence(s))
	}
	return out
}

var noon = time.Date(2026, 11, 20, 11, 59, 58, 0, time.UTC)

func TestCycle(t *testing.T) {
	d := NewDecoder()
	at := time.Now()
	var fixes []Fix
	var skies []Sky
	for i := range 3 {
		for _, s := range cycleOf(noon.Add(time.Duration(i)*time.Second), "4807.0380", "01131.0000") {
			f, sky, ended, err := d.Sentence(s, at.Add(time.Duration(i)*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			if ended {
				fixes, skies = append(fixes, f), append(skies, sky)
			}
		}
	}
	if len(fixes) != 2 {
		t.Fatalf("expected a fix for each cycle that is over, got %d", len(fixes))
	}
	f := fixes[1]
	if !f.Time.Equal(noon.Add(time.Second)) || f.Mode != Fix3D || f.Quality != Autonomous || f.Used != 11 || f.Seen != 10 || !f.At.Equal(at.Add(time.Second)) {
		t.Errorf("got %+v", f)
	}
	for name, v := range map[string][2]float64{
		"lat": {f.Lat, 48 + 7.038/60}, "lon": {f.Lon, 11 + 31.0/60}, "alt": {f.Alt, 520.5}, "geoid": {f.Geoid, 47},
		"speed": {f.Speed, 1.94 * 1852 / 3600}, "track": {f.Track, 45}, "hdop": {f.HDOP, 0.8}, "vdop": {f.VDOP, 1.3}, "pdop": {f.PDOP, 1.5},
		"accuracy": {f.Accuracy, 5}, "altitude's": {f.AccuracyAlt, 7}, // 2·√(1.5² + 2²)
	} {
		if math.Abs(v[0]-v[1]) > 1e-9 {
			t.Errorf("%s: expected %v, got %v", name, v[1], v[0])
		}
	}
	if f.AccuracySource != FromGST {
		t.Errorf("accuracy of %q", f.AccuracySource)
	}
	used := map[GNSS]int{}
	for _, s := range skies[1].Satellites {
		if s.Used {
			used[s.GNSS]++
		}
	}
	if fmt.Sprint(used) != "map[gps:4 galileo:3 glonass:2]" {
		t.Errorf("used: %v of %+v", used, skies[1].Satellites)
	}
	if s := skies[1].Satellites[4]; s != (Satellite{SBAS, 127, 20, 150, -1, false}) {
		t.Errorf("a satellite that is not heard: %+v", s)
	}
}

func TestWhatReceiversSay(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"nothing yet":             {[]string{"GNRMC,,V,,,,,,,,,,N", "GNGGA,,,,,,0,00,99.99,,,,,,", "GNGSA,A,1,,,,,,,,,,,,,99.99,99.99,99.99"}, "none"},
		"time before a place":     {[]string{"GNRMC,101112.00,V,,,,,,,201126,,,N", "GNGGA,101112.00,,,,,0,00,99.99,,,,,,"}, "none 2026-11-20T10:11:12Z"},
		"two dimensions":          {[]string{"GPGGA,101112,4807.038,N,01131.000,E,1,03,2.0,,M,,M,,", "GPGSA,A,2,01,02,03,,,,,,,,,,2.2,2.0,"}, "2D autonomous 3 used 48.1173 11.5167 ±28.4 hdop"},
		"only GLL":                {[]string{"GPGLL,4916.45,N,12311.12,W,225444,A"}, "2D autonomous 0 used 49.2742 -123.1853"},
		"only GNS":                {[]string{"GNGNS,014035.00,4332.69262,S,17235.48549,E,RR,13,0.9,25.63,11.24,,"}, "3D rtk 13 used -43.5449 172.5914 ±0.0 hdop"},
		"differential":            {[]string{"GPGGA,101112,4807.038,N,01131.000,E,2,08,1.0,500,M,47,M,2.0,0120"}, "3D differential 8 used 48.1173 11.5167 ±3.8 hdop"},
		"dead reckoning":          {[]string{"GPGGA,101112,4807.038,N,01131.000,E,6,00,9.0,500,M,47,M,,"}, "3D estimated 0 used 48.1173 11.5167"},
		"simulator":               {[]string{"GPGGA,101112,4807.038,N,01131.000,E,8,08,1.0,500,M,47,M,,"}, "3D autonomous 8 used 48.1173 11.5167 ±14.2 hdop simulated"},
		"simulator by mode":       {[]string{"GPRMC,101112,A,4807.038,N,01131.000,E,0,0,201126,,,S"}, "2D simulated 0 used 2026-11-20T10:11:12Z 48.1173 11.5167"},
		"sentences that disagree": {[]string{"GPGGA,101112,4807.038,N,01131.000,E,1,08,1.0,500,M,47,M,,", "GPRMC,101112,V,4807.038,N,01131.000,E,0,0,201126,,,N"}, "none 8 used 2026-11-20T10:11:12Z"},
		"date of ZDA":             {[]string{"GPZDA,101112.50,20,11,2026,00,00"}, "none 2026-11-20T10:11:12.5Z"},
		"no such date":            {[]string{"GPZDA,101112.50,31,02,2026,00,00"}, "none"},
		"the year GPS began":      {[]string{"GPRMC,000003,V,,,,,,,060180,,,N"}, "none 1980-01-06T00:00:03Z"},
		"not of a receiver":       {[]string{"SDDPT,5.3,0.4,", "PUBX,00,1", "GPTXT,01,01,02,u-blox", "PQ"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder()
			for _, l := range c.lines {
				if _, _, _, err := d.Sentence(sentence(l), time.Now()); err != nil {
					t.Error(err)
				}
			}
			got := ""
			if f, _, ok := d.Flush(); ok {
				got = short(f)
			}
			if got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func short(f Fix) string {
	s := []string{map[Mode]string{NoFix: "none", Fix2D: "2D", Fix3D: "3D"}[f.Mode]}
	if f.Quality != "" {
		s = append(s, string(f.Quality))
	} else if f.Mode != NoFix {
		s = append(s, "simulated")
	}
	if f.Used > 0 || f.Mode != NoFix {
		s = append(s, fmt.Sprintf("%d used", f.Used))
	}
	if !f.Time.IsZero() {
		s = append(s, f.Time.Format(time.RFC3339Nano))
	}
	if !math.IsNaN(f.Lat) {
		s = append(s, fmt.Sprintf("%.4f %.4f", f.Lat, f.Lon))
	}
	if f.AccuracySource != "" {
		s = append(s, fmt.Sprintf("±%.1f %s", f.Accuracy, f.AccuracySource))
	}
	if f.simulated && f.Quality != "" {
		s = append(s, "simulated")
	}
	return strings.Join(s, " ")
}

func TestDateGoesOverMidnight(t *testing.T) {
	d := NewDecoder()
	at := time.Now()
	say := func(s string) Fix {
		t.Helper()
		at = at.Add(time.Second)
		if _, _, _, err := d.Sentence(sentence(s), at); err != nil {
			t.Fatal(err)
		}
		f, _, _ := d.Flush()
		return f
	}
	say("GPRMC,235959,A,4807.038,N,01131.000,E,0,0,311226,,,A")
	if f := say("GPGGA,000000,4807.038,N,01131.000,E,1,08,1.0,500,M,47,M,,"); f.Time.Format(time.RFC3339) != "2027-01-01T00:00:00Z" {
		t.Errorf("after midnight it is %s", f.Time)
	}
	at = at.Add(dateLasts)
	if f := say("GPGGA,001000,4807.038,N,01131.000,E,1,08,1.0,500,M,47,M,,"); !f.Time.IsZero() {
		t.Errorf("a date of long ago makes %s", f.Time)
	}
}

func TestLinesBetweenNoise(t *testing.T) {
	good := cycleOf(noon, "4807.0380", "01131.0000")
	ubx := "\xb5\x62\x01\x07\x5c\x00$GPGGA,\x00\x01\x02$$$$\xff\n\r" // with what looks like a beginning
	rtcm := "\xd3\x00\x13\x3e\xd7\xd3\x02\x02\x98\x0e\xde\xef\x34\xb4\xbd\x62\xac\x09\x41\x98\x6f\x33\x36\x0b\x98"
	var in strings.Builder
	in.WriteString("0,4807.038,N,0113") // half a sentence
	in.WriteString("\r\n")
	for _, s := range good {
		in.WriteString(ubx + s + "\r\n" + rtcm)
	}
	in.WriteString("$GPGGA,1234" + good[0] + "\n")                        // one that another one breaks off
	in.WriteString("$GPRMC,1*00\r\n$GPRMC,1\r\n$*00\r\n$\r\n*7F\r\n$GP*") // wrong, and without checksums
	in.WriteString("$" + strings.Repeat("A", 3*maxLine) + "\r\n" + good[1] + "\r\n")
	for _, size := range []int{1, 7, 1 << 20} {
		var l Lines
		var got []string
		for b := []byte(in.String()); len(b) > 0; {
			n := min(size, len(b))
			l.Feed(b[:n], func(s string) { got = append(got, s) })
			b = b[n:]
		}
		if want := append(append([]string{}, good...), good[0], good[1]); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("in pieces of %d: got %q", size, got)
		}
		if l.Sentences != uint64(len(got)) || l.Damaged != 4 || l.Noise < 3*maxLine {
			t.Errorf("in pieces of %d: %+v", size, l.LineStats)
		}
	}
}

// fixAt is a good fix.
func fixAt(at time.Time, t time.Time, lat, lon float64) Fix {
	f := blank()
	f.At, f.Time, f.Mode, f.Quality, f.Lat, f.Lon, f.HDOP, f.Used, f.Accuracy = at, t, Fix3D, Autonomous, lat, lon, 1, 8, 10
	return f
}

func TestJudge(t *testing.T) {
	build := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	at := time.Now()
	for name, c := range map[string]struct {
		change func(*Fix)
		want   Reason
		why    string
	}{
		"good":         {func(*Fix) {}, "", ""},
		"nowhere":      {func(f *Fix) { f.Lat, f.Lon = 0, 0.0003 }, ReasonZero, "0° north"},
		"equator":      {func(f *Fix) { f.Lat = 0 }, "", ""},
		"no number":    {func(f *Fix) { f.Lon = math.NaN() }, ReasonRange, "a place on Earth"},
		"off the pole": {func(f *Fix) { f.Lat = 90.1 }, ReasonRange, "a place on Earth"},
		"in orbit":     {func(f *Fix) { f.Alt = 400_000 }, ReasonRange, "altitude of -1000 to 60000 m, got 400000"},
		"fast":         {func(f *Fix) { f.Speed = 600 }, ReasonSpeed, "at most 514 m/s, got 600"},
		"vague":        {func(f *Fix) { f.HDOP = 99.99 }, ReasonDilution, "below 50, got 100.0"},
		"simulator":    {func(f *Fix) { f.simulated = true }, ReasonSimulated, "made up"},
		"before GPS":   {func(f *Fix) { f.Time = time.Date(1980, 1, 6, 0, 0, 0, 0, time.UTC) }, ReasonDate, "expected a date of 2026-11-01 to 2046-11-01, got 1980-01-06"},
		"far ahead":    {func(f *Fix) { f.Time = build.AddDate(21, 0, 0) }, ReasonDate, "got 2047-11-01"},
		"1024 weeks":   {func(f *Fix) { f.Time = f.Time.Add(-rollover) }, ReasonRollover, "1024 weeks too few"},
		"frozen":       {func(f *Fix) { f.At = f.At.Add(-4 * time.Second) }, ReasonFrozen, "for 4s now"},
		"no time":      {func(f *Fix) { f.Time = time.Time{} }, "", ""},
		"unknown":      {func(f *Fix) { *f = blank() }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			j := NewJudge(build, build.AddDate(20, 0, 0))
			f := fixAt(at, noon, 48, 11)
			c.change(&f)
			g, reason := j.Judge(f, at)
			if reason != c.want || !strings.Contains(j.why, c.why) || c.want != "" && (j.dropped[c.want] != 1 || j.why == "") {
				t.Errorf("got %q, %q, %v", reason, j.why, j.dropped)
			}
			switch {
			case c.want == ReasonRollover:
				if g.Mode != Fix3D || !g.Time.IsZero() {
					t.Errorf("expected the position without a time, got %+v", g)
				}
			case c.want != "":
				if g.Mode != NoFix || !math.IsNaN(g.Lat) || !g.Time.IsZero() {
					t.Errorf("expected neither position nor time, got %+v", g)
				}
			case g.Mode != f.Mode:
				t.Errorf("got %+v", g)
			}
		})
	}
}

func TestJumps(t *testing.T) {
	j := NewJudge(time.Time{}, noon.AddDate(20, 0, 0))
	at := time.Now()
	step := 0
	see := func(lat float64, after time.Duration) Reason {
		at = at.Add(after)
		step++
		_, r := j.Judge(fixAt(at, noon.Add(time.Duration(step)*time.Second), lat, 11), at)
		return r
	}
	if r := see(48, time.Second); r != "" {
		t.Fatal(r)
	}
	if r := see(48.0005, time.Second); r != "" { // 55 m, within the noise
		t.Error(r)
	}
	if r := see(48.1, time.Second); r != ReasonJump { // 11 km in a second
		t.Errorf("got %q", r)
	}
	if r := see(48.0004, time.Second); r != "" { // and back
		t.Error(r)
	}
	// Somewhere else, and there to stay.
	for i := range moved - 1 {
		if r := see(50, time.Second); r != ReasonJump {
			t.Errorf("after %d: %q", i, r)
		}
	}
	if r := see(50, time.Second); r != "" {
		t.Errorf("it is there to stay, and yet: %q", r)
	}
	// Here and there: never.
	for i := range 3 * moved {
		if r := see(20+float64(i%2)*20, time.Second); r != ReasonJump {
			t.Errorf("after %d: %q", i, r)
		}
	}
	if r := see(51, time.Hour); r != "" { // 111 km in an hour
		t.Errorf("got %q", r)
	}
	if !strings.Contains(j.why, "km away after") {
		t.Error(j.why)
	}
}

func TestDistance(t *testing.T) {
	// Munich to Berlin, by the geodesic on WGS 84: 504.2 km.
	if d := Distance(48.137222, 11.575556, 52.518611, 13.408333); math.Abs(d-504_200) > 2500 {
		t.Errorf("got %.0f m", d)
	}
	if d := Distance(0, 0, 0, 180); math.Abs(d-math.Pi*radius) > 1 {
		t.Errorf("half around: %.0f m", d)
	}
}

func TestTimeIsBelievedWhenItAgrees(t *testing.T) {
	at := time.Now()
	k := NewTimekeeper()
	say := func(i int, late time.Duration, off time.Duration, change ...func(*Fix)) (Told, bool) {
		f := fixAt(at.Add(time.Duration(i)*time.Second+late), noon.Add(time.Duration(i)*time.Second+off), 48, 11)
		for _, c := range change {
			c(&f)
		}
		return k.Fix(f)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		late := 100*time.Millisecond + time.Duration(r.IntN(300))*time.Millisecond
		told, ok := say(i, late, 0)
		if ok != (i >= agreeing-1) {
			t.Fatalf("after %d: %v", i+1, ok)
		}
		if ok {
			if off := told.Time.Sub(noon) - told.At.Sub(at); off > 0 || off < -400*time.Millisecond || told.Accuracy != time.Second {
				t.Errorf("after %d: off by %s", i+1, off)
			}
		}
	}
	if _, ok := say(60, 0, 2*time.Second); ok { // leap seconds that it has learnt
		t.Error("a time that jumps is believed")
	}
	for i := 61; i < 61+agreeing; i++ {
		say(i, 0, 2*time.Second)
	}
	if told, ok := say(75, 0, 2*time.Second); !ok || told.Time.Sub(noon)-told.At.Sub(at) != 2*time.Second {
		t.Errorf("a time that is there to stay: %+v, %v", told, ok)
	}
	for name, change := range map[string]func(*Fix){
		"three satellites": func(f *Fix) { f.Used = 3 }, "no time": func(f *Fix) { f.Time = time.Time{} },
		"no fix": func(f *Fix) { f.Mode = NoFix }, "dead reckoning": func(f *Fix) { f.Quality = Estimated },
	} {
		if _, ok := say(76, 0, 2*time.Second, change); ok {
			t.Errorf("%s: believed", name)
		}
	}
}

func TestPulseSaysWhenTheSecondBegan(t *testing.T) {
	at := time.Now()
	k := NewTimekeeper()
	var told Told
	for i := range 20 {
		edge := at.Add(time.Duration(i) * time.Second)
		k.Pulse(uint32(100+i), edge)
		told, _ = k.Fix(fixAt(edge.Add(450*time.Millisecond), noon.Add(time.Duration(i)*time.Second), 48, 11))
	}
	if !told.Pulse || told.Accuracy != time.Millisecond || told.Time.Sub(noon) != told.At.Sub(at) {
		t.Errorf("got %+v", told)
	}
	// Pulses that are not a second apart are of something else.
	k.Pulse(120, at.Add(20*time.Second+200*time.Millisecond))
	if told, ok := k.Fix(fixAt(at.Add(20*time.Second+450*time.Millisecond), noon.Add(20*time.Second), 48, 11)); !ok || told.Pulse {
		t.Errorf("got %+v, %v", told, ok)
	}
}

func FuzzLines(f *testing.F) {
	for _, s := range cycleOf(noon, "4807.0380", "01131.0000") {
		f.Add([]byte(s + "\r\n"))
	}
	f.Add([]byte("\xb5\x62$GPGGA,\xff$GPGSV,9,9,99,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,F*00\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l Lines
		d, j, k := NewDecoder(), NewJudge(noon.AddDate(0, -1, 0), noon.AddDate(20, 0, 0)), NewTimekeeper()
		at := time.Now()
		each := func(x Fix, s Sky) {
			if len(s.Satellites) > 8*16*4*maxGSV {
				t.Fatalf("%d satellites", len(s.Satellites))
			}
			x, reason := j.Judge(x, at)
			if x.Mode != NoFix && (!(math.Abs(x.Lat) <= 90) || !(math.Abs(x.Lon) <= 180) || reason != "" && reason != ReasonRollover) {
				t.Fatalf("%q passes: %+v", reason, x)
			}
			k.Fix(x)
		}
		hear := func(line string) {
			if len(line) > maxLine {
				t.Fatalf("a line of %d", len(line))
			}
			at = at.Add(10 * time.Millisecond)
			if x, s, ended, err := d.Sentence(line, at); err == nil && ended {
				each(x, s)
			}
		}
		l.Feed(b, hear)
		// The same without the checksum in the way.
		for line := range strings.SplitSeq(string(b), "\n") {
			l.Feed([]byte(sentence(strings.TrimLeft(strings.TrimSpace(line), "$"))+"\n"), hear)
		}
		if x, s, ok := d.Flush(); ok {
			each(x, s)
		}
	})
}

// BenchmarkSentence is all that is done with one, and what a receiver with ten cycles of ten
// sentences in a second takes of a core: by the processor's time, whatever else runs.
func BenchmarkSentence(b *testing.B) {
	var in strings.Builder
	for i := range 10 {
		for _, s := range cycleOf(noon.Add(time.Duration(i)*time.Second), "4807.0380", "01131.0000") {
			in.WriteString(s + "\r\n")
		}
	}
	raw := []byte(in.String())
	var l Lines
	d, j, k := NewDecoder(), NewJudge(noon.AddDate(0, -1, 0), noon.AddDate(20, 0, 0)), NewTimekeeper()
	at := time.Now()
	n := 0
	b.ReportAllocs()
	began := processor()
	for b.Loop() {
		l.Feed(raw, func(line string) {
			n++
			if x, _, ended, err := d.Sentence(line, at); err == nil && ended {
				at = at.Add(time.Second)
				x, _ = j.Judge(x, at)
				k.Fix(x)
			}
		})
	}
	each := float64((processor() - began).Nanoseconds()) / float64(n)
	b.ReportMetric(each, "cpu-ns/sentence")
	b.ReportMetric(100*each/1e9*100, "%core@10Hz")
}

// processor is what this process has had of it.
func processor() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
