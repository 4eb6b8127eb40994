package mesh

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"halo.internal/model"
)

func TestOverlayEventsAreOfFailuresAlone(t *testing.T) {
	waits := fmt.Errorf("%w: not made yet", errNoUnderlay)
	broken := errors.New("no memory")
	for _, tc := range []struct {
		name string
		errs []error
		want []string
	}{
		{"a start", []error{waits, waits, nil, nil}, nil},
		{"a failure", []error{waits, broken, broken, nil, nil}, []string{"overlay.failed", "overlay.recovered"}},
		{"the underlay goes in between", []error{nil, broken, waits, nil}, []string{"overlay.failed", "overlay.recovered"}},
		{"again", []error{broken, nil, broken}, []string{"overlay.failed", "overlay.recovered", "overlay.failed"}},
	} {
		var tale overlayTale
		var got []string
		for _, err := range tc.errs {
			tale.tell(err, func(kind string, _ model.Severity, _ string, _ ...string) { got = append(got, kind) })
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
