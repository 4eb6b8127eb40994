package telemetry

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"halo.internal/gateway/store"
)

// week is the number of weeks since Monday, 5 January 1970: each is an ISO week, in UTC.
type week int64

const (
	weekMS      = 7 * dayMS
	firstMonday = 4 * dayMS
)

func weekOf(ms int64) week { return week(floor(ms-firstMonday, weekMS) / weekMS) }

// begin and end are Unix milliseconds, the latter the first of the week after.
func (w week) begin() int64 { return int64(w)*weekMS + firstMonday }
func (w week) end() int64   { return (w + 1).begin() }

// String is the ISO week, such as 2026-W48.
func (w week) String() string {
	year, n := time.UnixMilli(w.begin()).UTC().ISOWeek()
	return fmt.Sprintf("%04d-W%02d", year, n)
}

const weekSuffix = ".db"

var weekForm = regexp.MustCompile(`^(\d{4})-W(\d{2})\.db$`)

// weekNamed returns the week whose file has that name.
func weekNamed(name string) (w week, ok bool) {
	m := weekForm.FindStringSubmatch(name)
	if m == nil {
		return 0, false
	}
	year, err1 := strconv.Atoi(m[1])
	n, err2 := strconv.Atoi(m[2])
	if err1 != nil || err2 != nil {
		return 0, false
	}
	// 4 January is in the first week of its year.
	w = weekOf(time.Date(year, time.January, 4, 0, 0, 0, 0, time.UTC).UnixMilli()) + week(n-1)
	return w, w.String()+weekSuffix == name
}

// besideNamed returns the week whose file of this release has that name, where a later one
// has the other.
func besideNamed(name string) (w week, ok bool) {
	year, rest, _ := strings.Cut(name, ".")
	w, ok = weekNamed(year + weekSuffix)
	return w, ok && "."+rest == store.Beside(weekSuffix, weekVersion)
}

// Stamps outside of these are nobody's: the first is before HALO, the other beyond all of
// its clocks.
var (
	earliest = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	latest   = time.Date(2100, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
)
