package card

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// begin begins on a disk.
func begin(m *memory) (string, error) { return NewReset(m).Begin(NewVault(m)) }

func TestResetIsBegunUntilItIsDone(t *testing.T) {
	m := newMemory()
	r := NewReset(m)
	if by, err := begin(m); by != "" || err != nil {
		t.Fatalf("a new card: got %q, %v", by, err)
	}
	if err := r.Ask("button"); err != nil {
		t.Fatal(err)
	}
	for start := range 3 * resetTries { // each cut short by a loss of power
		if by, err := begin(m); by != "button" || err != nil {
			t.Errorf("start %d: got %q, %v", start, by, err)
		}
		if by, err := r.Withdraw(); by != "" || err != nil {
			t.Errorf("what has begun is taken back: %q, %v", by, err)
		}
		if err := r.Ask("again"); err != nil {
			t.Error(err)
		}
	}
	if err := r.Done(); err != nil {
		t.Fatal(err)
	}
	if by, err := begin(m); by != "" || err != nil {
		t.Errorf("what is done is begun again: got %q, %v", by, err)
	}
}

func TestResetIsWithdrawn(t *testing.T) {
	m := newMemory()
	r := NewReset(m)
	if by, err := r.Withdraw(); by != "" || err != nil {
		t.Errorf("of nobody: %q, %v", by, err)
	}
	if err := r.Ask(""); err != nil {
		t.Fatal(err)
	}
	if by, err := r.Withdraw(); by != "somebody" || err != nil {
		t.Errorf("got %q, %v", by, err)
	}
	if by, err := begin(m); by != "" || err != nil {
		t.Errorf("it was begun: %q, %v", by, err)
	}
}

// A request whose vault cannot be emptied leaves the device as it was, and is given up.
func TestResetThatCannotBegin(t *testing.T) {
	m := newMemory()
	v := NewVault(m)
	if err := errors.Join(v.Put("identity", []byte("me")), NewReset(m).Ask("button")); err != nil {
		t.Fatal(err)
	}
	m.bad = map[int64]bool{vault0: true, vault1: true}
	for range resetTries {
		if by, err := begin(m); by != "" || err == nil {
			t.Errorf("got %q, %v", by, err)
		}
	}
	if by, err := begin(m); by != "" || err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("got %q, %v", by, err)
	}
	if by, err := begin(m); by != "" || err != nil {
		t.Errorf("it is told of again: got %q, %v", by, err)
	}
	m.bad = nil
	if b, err := v.Get("identity"); err != nil || string(b) != "me" {
		t.Errorf("the device is not as it was: %q, %v", b, err)
	}
}

// volume is where the data partition lies on the disk of a test.
const volume = 3 << 20

// start is a start of the machine with a disk, which has what is in the data partition
// believed, or makes it anew as image/boot does. It tells whether it was made anew.
func start(m *memory) (fresh bool, err error) {
	by, err := begin(m)
	if by == "" {
		return false, err
	}
	template := []byte(strings.Repeat("new ", 100))
	for at := 0; at < len(template); at += 100 {
		if _, err := m.WriteAt(template[at:at+100], volume+int64(at)); err != nil {
			return false, err
		}
	}
	if err := m.Sync(); err != nil {
		return false, err
	}
	return true, NewReset(m).Done()
}

// Power goes after any number of octets, once or at each of many starts, in whatever step
// of the reset. A device that is believed afterwards is the old one or a new one, as a
// whole, and what is asked for is carried out once there is power.
func TestResetTornAtEveryStep(t *testing.T) {
	old := strings.Repeat("old ", 100)
	for _, cuts := range []int{1, resetTries, 2 * resetTries} {
		for power, done := 0, false; !done; power += 13 {
			m := newMemory()
			v := NewVault(m)
			copy(m.b[volume:], old)
			if err := errors.Join(v.Put("identity", []byte("the old one")), NewReset(m).Ask("button")); err != nil {
				t.Fatal(err)
			}
			whole := func() (is string) {
				t.Helper()
				data := string(m.b[volume : volume+len(old)])
				_, err := v.Get("identity")
				switch {
				case data == old: // its vault is filled again from the data partition
					return "old"
				case data == strings.Repeat("new ", 100) && errors.Is(err, fs.ErrNotExist):
					return "new"
				}
				t.Fatalf("%d cuts after %d octets: a device is believed that is neither the old one nor new: %.40q, %v", cuts, power, data, err)
				return ""
			}
			believed := false // a new device, which may have been set up since
			again := func(power int) error {
				t.Helper()
				m.power = power
				fresh, err := start(m)
				left := m.power
				m.power = -1
				if fresh && believed {
					t.Fatalf("%d cuts after %d octets: the new device was reset again", cuts, power)
				}
				believed = believed || fresh && err == nil
				done = done || err == nil && left > 0
				if now, err := NewReset(m).load(); err != nil || !now.Wipe {
					whole()
				}
				return err
			}
			for range cuts {
				_ = again(power) // the power went, as it should
			}
			if err := again(-1); err != nil && !strings.Contains(err.Error(), "given up") {
				t.Fatalf("%d cuts after %d octets: %v", cuts, power, err)
			}
			if is := whole(); is == "old" && cuts < resetTries {
				t.Fatalf("%d cuts after %d octets: it was forgotten", cuts, power)
			}
			if by, err := begin(m); by != "" || err != nil {
				t.Fatalf("%d cuts after %d octets: the start after it is a reset for %q, %v", cuts, power, by, err)
			}
		}
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
		by, err := begin(m)
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
	if by, err := begin(m); by != "" || !errors.Is(err, ErrDamaged) {
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
