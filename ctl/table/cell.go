package table

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Cell is a value in two forms: as people read it, and as programs do. The second is what
// the API's JSON says in the same place: times by RFC 3339, durations in seconds, sizes in
// octets, numbers without their unit and with all their digits, true and false. What is not
// there is empty.
type Cell struct{ people, programs string }

// String is the form for people.
func (c Cell) String() string { return c.people }

// Programs is the form for programs.
func (c Cell) Programs() string { return c.programs }

// Of makes a cell of a value: a time and a duration become Time and Span, a boolean Yes;
// all others are the same in both forms.
func Of(v any) Cell {
	switch v := v.(type) {
	case Cell:
		return v
	case time.Time:
		return Time(v)
	case time.Duration:
		return Span(v)
	case bool:
		return Yes(v)
	}
	text := fmt.Sprint(v)
	return Cell{text, text}
}

// Two is a cell whose forms have nothing in common.
func Two(people, programs string) Cell { return Cell{people, programs} }

// Yes says yes or no to people.
func Yes(b bool) Cell {
	if b {
		return Cell{"yes", "true"}
	}
	return Cell{"no", "false"}
}

// Time is an instant; the zero time is none.
func Time(t time.Time) Cell {
	if t.IsZero() {
		return Cell{}
	}
	return Cell{t.UTC().Format(time.DateTime), stamp(t)}
}

// stamp has milliseconds, as what is measured comes with them, and one width, so that
// texts are in the order of time.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// Age tells people how long ago t was, as one number with a unit, and programs when it was.
func Age(now, t time.Time) Cell {
	if t.IsZero() {
		return Cell{people: "never"}
	}
	c := Cell{programs: stamp(t)}
	switch d := now.Sub(t); {
	case d <= -5*time.Second:
		c.people = "in " + spell(-d)
	case d < time.Second: // clocks are read to the second
		c.people = "now"
	default:
		c.people = spell(d) + " ago"
	}
	return c
}

// Ago is an instant of which only the age is known.
func Ago(d time.Duration) Cell {
	c := Span(d)
	c.people += " ago"
	return c
}

// Span tells people a duration as one number with a unit.
func Span(d time.Duration) Cell { return Cell{spell(d), digits(d.Seconds())} }

func spell(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	}
	return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + " d"
}

// Bytes is a size, for people in binary units.
func Bytes(n int64) Cell {
	const units = "KMGTPE"
	c := Cell{programs: strconv.FormatInt(n, 10)}
	if n < 1<<10 {
		c.people = c.programs + " B"
		return c
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	c.people = fmt.Sprintf("%.1f %ciB", f, units[i])
	return c
}

// Value is a reading, for people with as many digits as are worth reading.
func Value(v float64) Cell {
	c := Cell{strconv.FormatFloat(v, 'g', 6, 64), digits(v)}
	if math.Abs(v) >= 1e5 && math.Abs(v) < 1e15 {
		c.people = strconv.FormatFloat(v, 'f', 0, 64)
	}
	return c
}

// In is a value in a unit, which programs know by the column. format is that of the number
// for people, such as %.1f; without one it is as Value has it.
func In(unit, format string, v float64) Cell {
	c := Value(v)
	if format != "" {
		c.people = fmt.Sprintf(format, v)
	}
	c.people += " " + unit
	return c
}

// digits are all of a number.
func digits(v float64) string {
	if m := math.Abs(v); v == 0 || m >= 1e-6 && m < 1e15 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
