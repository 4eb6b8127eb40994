package audit

import (
	"context"
	"log/slog"
	"maps"
	"strconv"
	"time"

	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const (
	eventTampered = "audit.tampered"

	verifyEvery = 24 * time.Hour         // gateways run for months
	verifyRest  = 100 * time.Millisecond // after each page: nobody waits, and others have work for the core
)

// Watch verifies the log at the start and daily, without haste, until ctx ends.
// A finding becomes an event, once: nothing mends a chain, and it would be told
// of until the record is dropped.
func (l *Log) Watch(ctx context.Context, to *events.Log, log *slog.Logger) error {
	for {
		v, err := l.verify(ctx, verifyRest)
		if err == nil && v.Fault != nil {
			err = tell(ctx, to, *v.Fault)
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("the audit log could not be verified", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(verifyEvery):
		}
	}
}

// tell adds the event of a finding, unless the newest one is of the same.
func tell(ctx context.Context, to *events.Log, f apitype.AuditFault) error {
	fields := map[string]string{"record": strconv.FormatInt(f.ID, 10), "expected": f.Expected, "came": f.Came}
	told, err := to.Newest(ctx, eventTampered)
	if err != nil {
		return err
	}
	if e, ok := told[""]; ok && maps.Equal(e.Fields, fields) {
		return nil
	}
	to.Add(eventTampered, model.Error, "", "the audit log is not as it was written: record "+fields["record"]+" does not fit", fields)
	return nil
}
