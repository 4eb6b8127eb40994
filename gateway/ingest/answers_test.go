package ingest

import (
	"reflect"
	"testing"

	"halo.internal/model/wire"
)

// Acknowledgements that follow each other go together, in order and within what one message
// may have; nothing else is moved.
func TestAnswersGoTogether(t *testing.T) {
	ack := func(seqs ...uint64) (a wire.Ack) {
		for _, s := range seqs {
			a.IDs = append(a.IDs, wire.ID(1, s))
		}
		return a
	}
	events := func(seqs ...uint64) wire.AckEvents { return wire.AckEvents{IDs: ack(seqs...).IDs} }
	refuse := wire.Refuse{Code: wire.RefuseBatch}
	for _, tc := range []struct {
		name      string
		put, want []wire.Message
	}{
		{"nothing", nil, nil},
		{"one", []wire.Message{ack(1)}, []wire.Message{ack(1)}},
		{"several", []wire.Message{ack(1), ack(2), ack(3)}, []wire.Message{ack(1, 2, 3)}},
		{"of batches and events", []wire.Message{ack(1), events(1), events(2), ack(2)}, []wire.Message{ack(1), events(1, 2), ack(2)}},
		{"around another message", []wire.Message{ack(1), refuse, ack(2), ack(3)}, []wire.Message{ack(1), refuse, ack(2, 3)}},
		{"others", []wire.Message{refuse, refuse}, []wire.Message{refuse, refuse}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newAnswers()
			for _, m := range tc.put {
				if !a.put(m) {
					t.Fatal("it is full")
				}
			}
			if got := a.take(); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if got := a.take(); got != nil {
				t.Errorf("once more: %+v", got)
			}
		})
	}
}

func TestAnswersAreBounded(t *testing.T) {
	a := newAnswers()
	for range 2 {
		for i := range maxAnswers {
			if !a.put(wire.Ack{IDs: []wire.BatchID{wire.ID(1, uint64(i+1))}}) {
				t.Fatalf("%d do not fit", i+1)
			}
		}
		if a.put(wire.Refuse{}) {
			t.Error("one more fits")
		}
		select {
		case <-a.some:
		default:
			t.Error("nobody is told")
		}
		total := 0
		for _, m := range a.take() {
			n := len(m.(wire.Ack).IDs)
			if total += n; n > wire.MaxAcks {
				t.Errorf("%d in one message, want at most %d", n, wire.MaxAcks)
			}
		}
		if total != maxAnswers {
			t.Errorf("%d of %d", total, maxAnswers)
		}
	}
}
