package uevent

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a listener and what speaks to it in the kernel's place.
func pair(t *testing.T) (*Listener, int) {
	t.Helper()
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := &Listener{os.NewFile(uintptr(fd[0]), "uevent")}
	t.Cleanup(func() { l.Close(); unix.Close(fd[1]) })
	return l, fd[1]
}

func TestAwait(t *testing.T) {
	l, kernel := pair(t)
	asked := 0
	if err := Await(t.Context(), l, func() (bool, error) { asked++; return true, nil }); err != nil || asked != 1 {
		t.Errorf("what is there already: %v, asked %d times", err, asked)
	}
	asked = 0
	err := Await(t.Context(), l, func() (bool, error) {
		asked++
		if asked == 3 {
			return true, nil
		}
		return false, unix.Send(kernel, []byte(rotten), 0)
	})
	if err != nil || asked != 3 {
		t.Errorf("after two events: %v, asked %d times", err, asked)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err = Await(ctx, l, func() (bool, error) { return false, errors.New("no phy0 yet") })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no phy0 yet") {
		t.Errorf("too late: %v", err)
	}
}
