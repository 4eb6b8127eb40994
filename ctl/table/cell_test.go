package table

import (
	"net/netip"
	"testing"
	"time"
)

// TestCells: what people read, and what programs do.
func TestCells(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 5e6, time.UTC)
	east := now.In(time.FixedZone("", 3600))
	for _, tc := range []struct {
		value            any
		people, programs string
	}{
		{"n01", "n01", "n01"},
		{42, "42", "42"},
		{netip.MustParseAddr("10.42.0.1"), "10.42.0.1", "10.42.0.1"},
		{true, "yes", "true"},
		{false, "no", "false"},
		{east, "2026-11-23 12:00:00", "2026-11-23T12:00:00.005Z"},
		{time.Time{}, "", ""},
		{Two("now", "5"), "now", "5"},

		{Age(now, time.Time{}), "never", ""},
		{Age(now, east), "now", "2026-11-23T12:00:00.005Z"},
		{Age(now, now.Add(2*time.Second)), "now", "2026-11-23T12:00:02.005Z"},
		{Age(now, now.Add(-59*time.Second)), "59 s ago", "2026-11-23T11:59:01.005Z"},
		{Age(now, now.Add(-time.Minute)), "1 min ago", "2026-11-23T11:59:00.005Z"},
		{Age(now, now.Add(-time.Hour)), "1 h ago", "2026-11-23T11:00:00.005Z"},
		{Age(now, now.Add(-47*time.Hour)), "47 h ago", "2026-11-21T13:00:00.005Z"},
		{Age(now, now.Add(-48*time.Hour)), "2 d ago", "2026-11-21T12:00:00.005Z"},
		{Age(now, now.Add(7*24*time.Hour)), "in 7 d", "2026-11-30T12:00:00.005Z"},

		{90 * time.Second, "1 min", "90"},
		{Span(1500 * time.Millisecond), "1 s", "1.5"},
		{Ago(3 * 24 * time.Hour), "3 d ago", "259200"},

		{Bytes(0), "0 B", "0"},
		{Bytes(1023), "1023 B", "1023"},
		{Bytes(1024), "1.0 KiB", "1024"},
		{Bytes(5 << 20), "5.0 MiB", "5242880"},
		{Bytes(1 << 62), "4.0 EiB", "4611686018427387904"},
		{Bytes(-1), "-1 B", "-1"},

		{Value(0), "0", "0"},
		{Value(12.5), "12.5", "12.5"},
		{Value(41.123456), "41.1235", "41.123456"},
		{Value(123456789), "123456789", "123456789"},
		{Value(1e20), "1e+20", "1e+20"},
		{Value(-0.0002), "-0.0002", "-0.0002"},
		{In("dBm", "%.0f", -61.6), "-62 dBm", "-61.6"},
		{In("Mbit/s", "", 58.5), "58.5 Mbit/s", "58.5"},
	} {
		if c := Of(tc.value); c.String() != tc.people || c.Programs() != tc.programs {
			t.Errorf("%v: got %q and %q, want %q and %q", tc.value, c, c.Programs(), tc.people, tc.programs)
		}
	}
}
