package card

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
)

func TestRanked(t *testing.T) {
	got := ranked([]string{"dm-0", "loop0", "mmcblk1", "nvme0n1", "ram0", "mmcblk0", "sdb", "sda", "vda"})
	if want := []string{"mmcblk0", "mmcblk1", "nvme0n1", "sda", "sdb", "vda"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A copy of the card has the card's GUIDs.
func TestTheSameDiskOfSeveralIsChosen(t *testing.T) {
	for _, tc := range []struct {
		name          string
		there, copies []string
		want          string
	}{
		{"the card, and a copy in a reader", []string{"sda", "mmcblk0"}, []string{"sda", "mmcblk0"}, "mmcblk0"},
		{"two readers", []string{"sdb", "sda"}, []string{"sda", "sdb"}, "sda"},
		{"another card in the slot", []string{"mmcblk0", "sda"}, []string{"sda"}, "sda"},
		{"none", []string{"mmcblk0", "sda"}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := first(ranked(tc.there), func(n string) (*Disk, error) {
				if !slices.Contains(tc.copies, n) {
					return nil, errors.New("another disk")
				}
				return &Disk{Name: n}, nil
			}, testGUID)
			if tc.want == "" {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("got %v, %v, want none", d, err)
				}
				return
			}
			if err != nil || d.Name != tc.want {
				t.Errorf("got %+v, %v, want %s", d, err, tc.want)
			}
		})
	}
}
