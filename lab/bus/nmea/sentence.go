package nmea

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// epoch is what the receiver says at a time: nothing while its cable is out.
func (r *Receiver) epoch(now time.Time) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.walk(now)
	if r.s.Silent {
		return nil
	}
	if r.s.Noise {
		b := make([]byte, 64+rand.IntN(192))
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		return b
	}
	now = now.Add(time.Duration(r.s.Ahead * float64(time.Second))).UTC()
	var b strings.Builder
	say := func(format string, args ...any) {
		b.WriteString(Sentence(fmt.Sprintf(format, args...)))
		r.s.Sent++
	}
	s := r.s
	clock, date := now.Format("150405.00"), now.Format("020106")
	if s.Fix == NoFix {
		say("GNRMC,%s,V,,,,,,,%s,,,N", clock, date)
		say("GNGGA,%s,,,,,0,00,99.99,,,,,,", clock)
		say("GNGSA,A,1,,,,,,,,,,,,,99.99,99.99,99.99")
		return []byte(b.String())
	}
	place := degrees(s.Lat, 2, "N", "S") + "," + degrees(s.Lon, 3, "E", "W")
	const knot = 1852.0 / 3600
	say("GNRMC,%s,A,%s,%.3f,%.2f,%s,,,A", clock, place, s.Speed/knot, s.Course, date)
	say("GNGGA,%s,%s,1,%02d,0.92,%.1f,M,47.3,M,,", clock, place, len(satellites), s.Alt)
	mode := 3
	if s.Fix == Fix2D {
		mode = 2
	}
	for _, talker := range []string{"GP", "GL"} {
		var used []string
		for _, sat := range satellites {
			if sat.talker == talker {
				used = append(used, fmt.Sprintf("%02d", sat.number))
			}
		}
		say("GNGSA,A,%d,%s%s,1.71,0.92,1.44", mode, strings.Join(used, ","), strings.Repeat(",", 12-len(used)))
	}
	if now.Sub(now.Truncate(time.Second)) < time.Second/time.Duration(s.RateHz) { // once a second
		for _, talker := range []string{"GP", "GL"} {
			view(talker, say)
		}
	}
	return []byte(b.String())
}

// satellite is one that the receiver uses.
type satellite struct {
	talker                          string
	number, elevation, azimuth, snr int
}

var satellites = []satellite{
	{"GP", 2, 62, 45, 44}, {"GP", 5, 18, 311, 33}, {"GP", 12, 41, 120, 40}, {"GP", 25, 77, 210, 46}, {"GP", 29, 33, 260, 38},
	{"GL", 66, 52, 88, 41}, {"GL", 74, 25, 180, 35}, {"GL", 82, 13, 330, 29},
}

// view lists the satellites of a system, four a sentence.
func view(talker string, say func(string, ...any)) {
	var list []satellite
	for _, s := range satellites {
		if s.talker == talker {
			list = append(list, s)
		}
	}
	count := (len(list) + 3) / 4
	for i := range count {
		text := fmt.Sprintf("%sGSV,%d,%d,%02d", talker, count, i+1, len(list))
		for _, s := range list[4*i : min(4*i+4, len(list))] {
			text += fmt.Sprintf(",%02d,%02d,%03d,%02d", s.number, s.elevation, s.azimuth, s.snr)
		}
		say("%s", text)
	}
}

// degrees is an angle as NMEA has it: degrees of so many digits, minutes, and the
// hemisphere behind a comma.
func degrees(v float64, digits int, positive, negative string) string {
	side := positive
	if v < 0 {
		side, v = negative, -v
	}
	const fraction = 1e5
	minutes := math.Round(v * 60 * fraction) // so that no 60.00000 comes out
	whole := math.Floor(minutes / (60 * fraction))
	return fmt.Sprintf("%0*d%08.5f,%s", digits, int(whole), (minutes-whole*60*fraction)/fraction, side)
}

// Sentence puts what a sentence says between its dollar sign and its checksum.
func Sentence(body string) string {
	var sum byte
	for i := range len(body) {
		sum ^= body[i]
	}
	return fmt.Sprintf("$%s*%02X\r\n", body, sum)
}
