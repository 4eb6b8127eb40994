package card

import (
	"errors"
	"io/fs"
	"testing"
)

func TestResetIsBegunSomeTimes(t *testing.T) {
	r := NewReset(newMemory())
	if by, err := r.Begin(); by != "" || err != nil {
		t.Fatalf("a new card: got %q, %v", by, err)
	}
	if err := r.Ask("button"); err != nil {
		t.Fatal(err)
	}
	for try := range resetTries { // each cut short by a loss of power
		if by, err := r.Begin(); by != "button" || err != nil {
			t.Errorf("start %d: got %q, %v", try, by, err)
		}
	}
	if by, err := r.Begin(); by != "" || err != nil {
		t.Errorf("it goes on for ever: got %q, %v", by, err)
	}
	if err := errors.Join(r.Ask("button"), r.Done()); err != nil {
		t.Fatal(err)
	}
	if by, err := r.Begin(); by != "" || err != nil {
		t.Errorf("what is done is begun again: got %q, %v", by, err)
	}
}

// Power may go at each octet of the request: it is there or it is not.
func TestResetTornAtEveryOctet(t *testing.T) {
	m := newMemory()
	for power := range 2 * SectorSize {
		clear(m.b[reset0 : reset0+SectorSize])
		clear(m.b[reset1 : reset1+SectorSize])
		if err := NewReset(m).Done(); err != nil {
			t.Fatal(err)
		}
		m.power = power
		asked := NewReset(m).Ask("button")
		m.power = -1
		by, err := NewReset(m).Begin()
		if err != nil || by != "" && by != "button" || asked == nil && by == "" {
			t.Fatalf("power for %d octets: asked %v, begun by %q, %v", power, asked, by, err)
		}
	}
}

func TestRottenResetDeletesNothing(t *testing.T) {
	m := newMemory()
	if err := NewReset(m).Ask("button"); err != nil {
		t.Fatal(err)
	}
	m.b[reset0+60] ^= 1
	m.b[reset1+60] ^= 1
	if by, err := NewReset(m).Begin(); by != "" || !errors.Is(err, ErrDamaged) {
		t.Errorf("got %q, %v", by, err)
	}
}

func TestClearedVaultHasNothing(t *testing.T) {
	m := newMemory()
	v := NewVault(m)
	if err := v.Put("identity", []byte("a secret key")); err != nil {
		t.Fatal(err)
	}
	if err := v.Clear(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Get("identity"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for _, at := range []int{vault0, vault1} {
		for i := range vaultSize {
			if string(m.b[at+i:at+i+12]) == "a secret key" {
				t.Fatalf("it is still on the disk, at %d", at+i)
			}
		}
	}
	if err := v.Put("identity", []byte("x")); err != nil {
		t.Error(err)
	}
}
