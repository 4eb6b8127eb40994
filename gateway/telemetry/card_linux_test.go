package telemetry

import (
	"errors"
	"fmt"
	"testing"

	"halo.internal/hal/card/disktest"
)

// What is acknowledged is on the card, with all that the file system has to know to find it,
// also where that writes nothing by itself for half a minute: TestPowerCut takes for granted
// what syncs do.
func TestCutCard(t *testing.T) {
	disk := disktest.New(t)
	s, err := openForCrash(t.Context(), disk.Dir, 1, strict{t})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutSchema(t.Context(), "n-0", modelSchemas[0]); err != nil {
		t.Fatal(err)
	}
	cut := func(what string, seq uint64) {
		t.Run(fmt.Sprintf("%s, %d batches", what, seq), func(t *testing.T) {
			s, err := openForCrash(t.Context(), disk.Cut(t).Dir, 1, strict{t})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := errors.Join(s.Close(), s.db.Close()); err != nil {
					t.Error(err)
				}
			}()
			boots := s.Coverage("n-1").Boots
			if len(boots) != 1 || boots[0].Last != seq || len(boots[0].Missing) != 0 {
				t.Fatalf("expected %d batches, got %+v", seq, boots)
			}
			verifySamples(t, s, 1, map[uint64]uint64{1: seq}, 1)
		})
	}
	for seq := uint64(1); seq <= 140; seq++ { // the log is begun anew on the way: from then on its file stays as long as it is
		if err := s.appendCrashBatches(t.Context(), 1, seq, seq); err != nil {
			t.Fatal(err)
		}
		switch {
		case seq <= 2 || seq%35 == 0:
			cut("committed", seq)
		case seq%35 == 20:
			if err := s.Tend(t.Context()); err != nil {
				t.Fatal(err)
			}
			cut("compacted", seq)
		case seq == 75:
			if err := errors.Join(s.Close(), s.db.Close()); err != nil {
				t.Fatal(err)
			}
			cut("closed", seq)
			if s, err = openForCrash(t.Context(), disk.Dir, 1, strict{t}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(s.Close(), s.db.Close()); err != nil {
		t.Fatal(err)
	}
}
