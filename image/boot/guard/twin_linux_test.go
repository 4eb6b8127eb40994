package guard

import (
	"context"
	"slices"
	"strings"
	"testing"
)

func TestCopiesOfTheDiskAreToldOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	plugged := make(chan string)
	var told []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		alike := func(name string) bool { return strings.HasPrefix(name, "sd") || name == "mmcblk0" }
		twins(ctx, "mmcblk0", []string{"mmcblk0", "sda", "vda"}, plugged, alike, func(n string) { told = append(told, n) })
	}()
	for _, name := range []string{"sda", "vdb", "sdb", "mmcblk0", "sdb"} {
		plugged <- name
	}
	cancel()
	<-done
	if want := []string{"sda", "sdb"}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}
