package format

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"halo.internal/gateway/telemetry"
)

// maxLine is the octets of a line: those of a reading are at most some 400.
const maxLine = 4 << 10

// SyntaxError is about a line that is not of the format.
type SyntaxError struct {
	Line int // from 1
	Err  error
}

// Error implements error.
func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns what is wrong.
func (e *SyntaxError) Unwrap() error { return e.Err }

// Read calls yield with each reading of a text, in its order, and ends with the error of
// yield, of r, or a *SyntaxError. A reading's node is as the text names it. Every reading
// has passed its Check.
func Read(r io.Reader, f Format, yield func(telemetry.Imported) error) error {
	var parse func(line string) (telemetry.Imported, bool, error)
	switch f {
	case CSV:
		parse = (&csvReader{}).line
	case NDJSON:
		parse = parseJSON
	case Prometheus, OpenMetrics:
		parse = (&textReader{seconds: f == OpenMetrics}).line
	default:
		return fmt.Errorf("expected a format csv, ndjson, prometheus or openmetrics, got %q", f)
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		reading, ok, err := parse(strings.TrimSuffix(lines.Text(), "\r"))
		if err == nil && ok {
			err = reading.Check()
		}
		if err != nil {
			return &SyntaxError{n, err}
		}
		if !ok {
			continue
		}
		if err := yield(reading); err != nil {
			return err
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return &SyntaxError{n + 1, fmt.Errorf("expected at most %d octets", maxLine)}
	} else if err != nil {
		return err
	}
	return nil
}

// parseTime reads an instant of RFC 3339, to the millisecond.
func parseTime(s string) (int64, error) {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, fmt.Errorf("time: expected one such as 2026-11-20T12:00:00.250Z, got %.40q", s)
	}
	return at.UnixMilli(), nil
}

func parseValue(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("value: expected a number, got %.40q", s)
	}
	return v, nil
}

// csvReader reads lines of CSV, the first of which names the columns.
type csvReader struct {
	place [5]int // of each of columns; -1: there is none
	named bool
	count int
}

func (c *csvReader) line(text string) (r telemetry.Imported, ok bool, err error) {
	if !c.named {
		text = strings.TrimPrefix(text, "\ufeff") // as spreadsheets write it
	}
	fields, err := split(text)
	if err != nil || len(fields) == 0 {
		return r, false, err
	}
	if !c.named {
		return r, false, c.header(fields)
	}
	if len(fields) != c.count {
		return r, false, fmt.Errorf("expected %d fields, as the first line names, got %d", c.count, len(fields))
	}
	field := func(i int) string {
		if c.place[i] < 0 {
			return ""
		}
		return fields[c.place[i]]
	}
	r.Node, r.Metric, r.Unit = field(1), field(2), field(3)
	if r.Time, err = parseTime(field(0)); err != nil {
		return r, false, err
	}
	r.Value, err = parseValue(field(4))
	return r, err == nil, err
}

func (c *csvReader) header(fields []string) error {
	for i, name := range columns {
		c.place[i] = slices.Index(fields, name)
		if c.place[i] < 0 && name != "unit" {
			return fmt.Errorf("expected a first line that names the columns %s, got %.80q", strings.Join(columns, ","), strings.Join(fields, ","))
		}
	}
	c.named, c.count = true, len(fields)
	return nil
}

// split returns the fields of one line of CSV; none of an empty one.
func split(text string) ([]string, error) {
	switch {
	case text == "":
		return nil, nil
	case !strings.Contains(text, `"`):
		return strings.Split(text, ","), nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		err = p.Err
	}
	return fields, err
}

func parseJSON(text string) (r telemetry.Imported, ok bool, err error) {
	if text == "" {
		return r, false, nil
	}
	var l struct {
		line
		Value *float64 `json:"value"`
	}
	if err := json.Unmarshal([]byte(text), &l); err != nil || l.Value == nil {
		return r, false, fmt.Errorf(`expected an object such as {"time":"2026-11-20T12:00:00.250Z","node":"n-…","metric":"system.cpu.used_percent","unit":"%%","value":23.5}, got %.80q`, text)
	}
	r = telemetry.Imported{Node: l.Node, Metric: l.Metric, Unit: l.Unit, Value: *l.Value}
	r.Time, err = parseTime(l.Time)
	return r, err == nil, err
}

// textReader reads lines of Prometheus' text.
type textReader struct {
	seconds bool // OpenMetrics
	ended   bool
}

func (t *textReader) line(text string) (r telemetry.Imported, ok bool, err error) {
	if t.seconds {
		if t.ended && text != "" {
			return r, false, fmt.Errorf("expected nothing after %s", end)
		}
		t.ended = t.ended || text == end
	}
	text = strings.Trim(text, " \t")
	if text == "" || text[0] == '#' {
		return r, false, nil
	}
	open := strings.IndexByte(text, '{')
	if open < 0 {
		return r, false, fmt.Errorf("expected labels in braces, metric and node among them, got %.80q", text)
	}
	rest, err := parseLabels(text[open+1:], func(name, value string) {
		switch name {
		case "node":
			r.Node = value
		case "metric":
			r.Metric = value
		case "unit":
			r.Unit = value
		}
	})
	if err != nil {
		return r, false, err
	}
	if r.Node == "" || r.Metric == "" {
		return r, false, fmt.Errorf("expected the labels metric and node, got %.80q", text)
	}
	if t.seconds {
		rest, _, _ = strings.Cut(rest, " # ") // an exemplar
	}
	fields := strings.Fields(rest)
	if len(fields) != 2 {
		return r, false, fmt.Errorf("expected a value and a time behind the labels, got %.80q", rest)
	}
	if r.Value, err = parseValue(fields[0]); err != nil {
		return r, false, err
	}
	r.Time, err = t.time(fields[1])
	return r, err == nil, err
}

func (t *textReader) time(s string) (int64, error) {
	if !t.seconds {
		at, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("time: expected Unix milliseconds, got %.40q", s)
		}
		return at, nil
	}
	at, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(at) || math.Abs(at) > math.MaxInt64/2000 {
		return 0, fmt.Errorf("time: expected Unix seconds, got %.40q", s)
	}
	return int64(math.Round(at * 1000)), nil
}

// parseLabels reads labels up to the brace that closes them, and returns what is behind.
func parseLabels(text string, label func(name, value string)) (rest string, err error) {
	for {
		text = strings.TrimLeft(text, " \t,")
		if after, closed := strings.CutPrefix(text, "}"); closed {
			return after, nil
		}
		name, after, ok := strings.Cut(text, "=")
		if after = strings.TrimLeft(after, " \t"); !ok || after == "" || after[0] != '"' {
			return "", fmt.Errorf(`expected a label such as node="n-…", got %.40q`, text)
		}
		value, behind, err := unquote(after[1:])
		if err != nil {
			return "", err
		}
		label(strings.TrimSpace(name), value)
		text = behind
	}
}

// unquote reads a label's value up to the quote that closes it.
func unquote(text string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			return b.String(), text[i+1:], nil
		case '\\':
			if i++; i == len(text) {
				break
			}
			switch text[i] {
			case 'n':
				b.WriteByte('\n')
			case '\\', '"':
				b.WriteByte(text[i])
			default:
				return "", "", fmt.Errorf(`expected \n, \" or \\ in a label, got \%c`, text[i])
			}
		default:
			b.WriteByte(text[i])
		}
	}
	return "", "", fmt.Errorf("expected a quote that closes a label, got %.40q", text)
}
