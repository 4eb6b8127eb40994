package store

import (
	"database/sql"
	"time"
)

// Times are stored as milliseconds since 1970.

// Millis is the stored form of a time.
func Millis(t time.Time) int64 { return t.UnixMilli() }

// Time reads the stored form.
func Time(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// TimePtr reads a time that may be missing.
func TimePtr(ms sql.NullInt64) *time.Time {
	if !ms.Valid {
		return nil
	}
	t := Time(ms.Int64)
	return &t
}

// MillisPtr is the stored form of a time that may be missing.
func MillisPtr(t *time.Time) sql.NullInt64 {
	if t == nil {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: Millis(*t), Valid: true}
}
