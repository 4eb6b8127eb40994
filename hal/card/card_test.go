package card

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"testing"
)

// memory is a disk in RAM whose power fails after a number of octets.
type memory struct {
	b     []byte
	power int            // octets that still reach the disk; negative: no end
	bad   map[int64]bool // offsets that cannot be read
}

var errPower = errors.New("power failed")

func newMemory() *memory { return &memory{b: make([]byte, 4<<20), power: -1} }

// wipe makes the raw areas' beginnings blank, where short values lie.
func (m *memory) wipe() {
	for _, at := range []int{slotState0, vault0, crash0, slotState1, vault1, crash1} {
		clear(m.b[at : at+4096])
	}
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if m.bad[off] {
		return 0, errors.New("sector cannot be read")
	}
	return copy(p, m.b[off:]), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	n := len(p)
	if m.power >= 0 {
		n = min(n, m.power)
		m.power -= n
	}
	copy(m.b[off:], p[:n])
	if n < len(p) {
		return n, errPower
	}
	return n, nil
}

func (m *memory) Sync() error {
	if m.power == 0 {
		return errPower
	}
	return nil
}

// TestStoreTornAtEveryOctet cuts the power after each octet of a Store. What
// is read afterwards must be the old value or the new one, and the next Store
// must work.
func TestStoreTornAtEveryOctet(t *testing.T) {
	old, fresh := bytes.Repeat([]byte("old "), 200), bytes.Repeat([]byte("fresh"), 250)
	for name, area := range map[string]func(Device) *Area{"crash": Crash, "vault": vaultArea} {
		t.Run(name, func(t *testing.T) { tear(t, area, old, fresh) })
	}
	t.Run("slot state", func(t *testing.T) { tear(t, SlotState, old[:40], fresh[:100]) })
}

func tear(t *testing.T, area func(Device) *Area, old, fresh []byte) {
	m := newMemory()
	for _, earlier := range []int{0, 1, 2, 3} { // which copy is older must not matter
		for cut := 0; ; cut++ {
			m.wipe()
			a := area(m)
			a.size = min(a.size, 4096) // what wipe makes blank: each store looks at all of its place
			for range earlier {
				if err := a.Store(old); err != nil {
					t.Fatal(err)
				}
			}
			m.power = cut
			err := a.Store(fresh)
			m.power = -1
			if err == nil {
				if cut == 0 {
					t.Fatal("a store without power succeeded")
				}
				break
			}
			got, err := a.Load()
			switch {
			case errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged):
				if earlier != 0 {
					t.Fatalf("cut at %d: lost the old value: %v", cut, err)
				}
			case err != nil:
				t.Fatalf("cut at %d: %v", cut, err)
			case !bytes.Equal(got, fresh) && !(earlier > 0 && bytes.Equal(got, old)):
				t.Fatalf("cut at %d: got %q, neither old nor new", cut, got)
			}
			if err := a.Store(fresh); err != nil {
				t.Fatalf("cut at %d: the next store: %v", cut, err)
			}
			if got, err := a.Load(); err != nil || !bytes.Equal(got, fresh) {
				t.Fatalf("cut at %d: after the next store: %q, %v", cut, got, err)
			}
		}
	}
}

// TestShorterValueLeavesNothingBehind replaces a long secret by a short value,
// with the power failing now and then. Once a store has succeeded, nothing of
// the secret is on the disk; and a whole copy never has a tail.
func TestShorterValueLeavesNothingBehind(t *testing.T) {
	secret, short := bytes.Repeat([]byte("secret "), 20000), []byte("short")
	for cut := -1; cut < 2*len(secret); cut += 9973 {
		m := newMemory()
		a := vaultArea(m)
		if err := a.Store(secret); err != nil {
			t.Fatal(err)
		}
		m.power = cut
		err := a.Store(short)
		m.power = -1
		if cut < 0 && err != nil {
			t.Fatal(err)
		}
		if got, err := a.Load(); err != nil || !bytes.Equal(got, short) && !bytes.Equal(got, secret) {
			t.Fatalf("cut at %d: got %.20q, %v", cut, got, err)
		}
		for i, at := range a.at {
			c := a.decode(m.b[at : at+int64(headSize+len(short))])
			if c.valid && bytes.Contains(m.b[at:at+int64(a.size)], []byte("secret")) {
				t.Errorf("cut at %d: copy %d is whole and has the secret behind it", cut, i)
			}
		}
		if err := a.Store(short); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(m.b, []byte("secret")) {
			t.Errorf("cut at %d: the secret is still on the disk", cut)
		}
	}
}

// A tail that cannot be read is overwritten all the same.
func TestUnreadableTailIsWiped(t *testing.T) {
	m := newMemory()
	a := vaultArea(m)
	if err := a.Store(bytes.Repeat([]byte("secret "), 2000)); err != nil {
		t.Fatal(err)
	}
	m.bad = map[int64]bool{vault0 + SectorSize: true, vault1 + SectorSize: true}
	if err := a.Store([]byte("short")); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(m.b, []byte("secret")) {
		t.Error("the secret is still on the disk")
	}
}

// TestOneCopyRots damages each octet of one copy; the other one must answer.
func TestOneCopyRots(t *testing.T) {
	value := []byte("the value")
	m := newMemory()
	for _, at := range []int64{slotState0, slotState1} {
		for i := range headSize + len(value) {
			m.wipe()
			a := SlotState(m)
			if err := a.Store(value); err != nil {
				t.Fatal(err)
			}
			m.b[at+int64(i)] ^= 0x40
			if got, err := a.Load(); err != nil || !bytes.Equal(got, value) {
				t.Fatalf("octet %d of the copy at %d: got %q, %v", i, at, got, err)
			}
		}
		m.wipe()
		a := SlotState(m)
		if err := a.Store(value); err != nil {
			t.Fatal(err)
		}
		m.bad = map[int64]bool{at: true}
		if got, err := a.Load(); err != nil || !bytes.Equal(got, value) {
			t.Errorf("unreadable sector at %d: got %q, %v", at, got, err)
		}
		m.bad = nil
	}
}

func TestLoadSaysWhatIsMissing(t *testing.T) {
	m := newMemory()
	a := SlotState(m)
	if _, err := a.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("blank disk: got %v, want one that wraps fs.ErrNotExist", err)
	}
	m.b[slotState0], m.b[slotState1] = 1, 1
	if _, err := a.Load(); !errors.Is(err, ErrDamaged) {
		t.Errorf("garbage: got %v, want ErrDamaged", err)
	}
	m.bad = map[int64]bool{slotState0: true}
	if _, err := a.Load(); err == nil || errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unreadable and garbage: got %v, want the disk's error: the one that cannot be read may be whole", err)
	}
	clear(m.b[slotState1:][:SectorSize])
	if _, err := a.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unreadable and blank: got %v, want one that wraps fs.ErrNotExist", err)
	}
	m.bad = map[int64]bool{slotState0: true, slotState1: true}
	if _, err := a.Load(); err == nil || errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unreadable: got %v, want the disk's error", err)
	}
	if err := a.Store(make([]byte, a.Max()+1)); err == nil {
		t.Error("a value longer than the area was stored")
	}
}

func TestVault(t *testing.T) {
	m := newMemory()
	v := NewVault(m)
	if _, err := v.Get("identity"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("blank: got %v, want one that wraps fs.ErrNotExist", err)
	}
	want := map[string][]byte{"identity": []byte("secret"), "clock": {}, "bundle": bytes.Repeat([]byte{7}, 100_000)}
	for name, value := range want {
		if err := v.Put(name, value); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string][]byte{}
	for name := range want {
		b, err := NewVault(m).Get(name) // as another process, after a restart
		if err != nil {
			t.Fatal(err)
		}
		got[name] = b
	}
	if !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got other values than were put")
	}
	m.power = 0
	if err := v.Put("identity", []byte("secret")); err != nil {
		t.Errorf("the same value again: got %v, want no write", err)
	}
	m.power = -1
	if err := v.Put("bundle", make([]byte, vaultSize)); err == nil {
		t.Error("a value larger than the vault was stored")
	}
	if b, err := v.Get("identity"); err != nil || string(b) != "secret" {
		t.Errorf("after a refused Put: got %q, %v", b, err)
	}
	clear(m.b[vault0+8 : vault0+20])
	clear(m.b[vault1+8 : vault1+20])
	if _, err := v.Get("identity"); !errors.Is(err, ErrDamaged) {
		t.Errorf("both copies rot: got %v, want ErrDamaged", err)
	}
	if err := v.Put("clock", []byte("1")); err != nil {
		t.Errorf("a damaged vault must start anew: %v", err)
	}
}

func TestVaultIsBounded(t *testing.T) {
	v := NewVault(newMemory())
	for i := range maxEntries {
		if err := v.Put(string(rune('A'+i)), []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Put("one more", []byte{1}); err == nil {
		t.Errorf("more than %d names were stored", maxEntries)
	}
}

// FuzzArea writes hostile octets where the copies lie.
func FuzzArea(f *testing.F) {
	m := newMemory()
	if err := NewVault(m).Put("clock", []byte("2026")); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(m.b[vault0:vault0+SectorSize]), bytes.Clone(m.b[vault1:vault1+SectorSize]))
	f.Add([]byte("halovalt\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), []byte{})
	disk := newMemory()
	f.Fuzz(func(t *testing.T, x, y []byte) {
		disk.b = disk.b[:cap(disk.b)]
		clear(disk.b[vault0 : vault0+vaultSize])
		clear(disk.b[vault1 : vault1+vaultSize])
		copy(disk.b[vault0:vault0+vaultSize], x)
		copy(disk.b[vault1:vault1+vaultSize], y)
		v := NewVault(disk)
		if _, err := v.Get("clock"); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
			t.Errorf("Get: %v", err)
		}
		if err := v.Put("clock", []byte("now")); err != nil {
			t.Fatalf("Put: %v", err)
		}
		if b, err := v.Get("clock"); err != nil || string(b) != "now" {
			t.Errorf("after Put: %q, %v", b, err)
		}
	})
}
