package perm

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"halo.internal/model"
)

// fake is a volume in a temporary directory. Its device is a file, which holds
// a file system once the template was written to it.
type fake struct {
	t          *testing.T
	dir        string
	broken     bool // cannot be mounted
	writable   bool // the template helps
	goodSuper  int64
	remembered int // errors
	contents   map[string]string
	growErr    error
	mountErrs  []error // of the first mounts, in order
	readErr    error   // of reading without the journal
	synced     [][]string
	free       int64
	readOnly   bool
}

// untouched is what a device holds before anything is written to it.
const untouched = "olddata!"

var errBroken = fmt.Errorf("mount: %w", syscall.EUCLEAN)

func (f *fake) path(name string) string { return filepath.Join(f.dir, name) }

// put writes to the beginning of the device.
func (f *fake) put(text string) {
	d, err := os.OpenFile(f.path("device"), os.O_WRONLY, 0)
	must(f.t, err)
	_, err = d.WriteAt([]byte(text), 0)
	must(f.t, errors.Join(err, d.Close()))
}

func (f *fake) fill(target string) {
	for name, content := range f.contents {
		p := filepath.Join(target, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o600)); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fake) mount(device, target string) error {
	b, err := os.ReadFile(device)
	if err != nil {
		return err
	}
	if len(f.mountErrs) > 0 {
		err, f.mountErrs = f.mountErrs[0], f.mountErrs[1:]
		return err
	}
	if f.writable && bytes.HasPrefix(b, []byte("template")) {
		return nil
	}
	if f.broken {
		return errBroken
	}
	f.fill(target)
	return nil
}

func (f *fake) mountReadOnly(_, target string, superblock int64) error {
	if f.readErr != nil {
		return f.readErr
	}
	if superblock != f.goodSuper {
		return errBroken
	}
	f.fill(target)
	return nil
}

func (f *fake) mountRAM(string) error { return nil }

func (f *fake) sync(target string) error {
	f.synced = append(f.synced, files(f.t, target))
	return nil
}

func (f *fake) unmount(target string) error {
	entries, err := os.ReadDir(target)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(target, e.Name())))
	}
	return err
}

func (f *fake) errors(string) (int, error) { return f.remembered, nil }

func (f *fake) grow(_, _ string, size int64) (bool, error) { return f.growErr == nil, f.growErr }

func (f *fake) usage(string) (int64, int64, bool, error) { return 1 << 30, f.free, f.readOnly, nil }

func volume(t *testing.T, f *fake) Volume {
	t.Helper()
	f.t, f.dir = t, t.TempDir()
	if f.free == 0 {
		f.free = 1 << 29
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte("template")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(),
		os.WriteFile(f.path("template.gz"), z.Bytes(), 0o600),
		os.WriteFile(f.path("device"), []byte(untouched), 0o600),
		os.Mkdir(f.path("perm"), 0o755), os.Mkdir(f.path("scratch"), 0o755)); err != nil {
		t.Fatal(err)
	}
	return Volume{Device: f.path("device"), Size: 1 << 30, Target: f.path("perm"), Scratch: f.path("scratch"),
		Template: f.path("template.gz"), SaveMax: 100, Log: slog.New(slog.DiscardHandler), fs: f, pause: func(time.Duration) {}}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, err := filepath.Rel(dir, p)
			list = append(list, rel)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Whatever step of a factory reset fails, or is the last before the power goes: nothing of
// the old file system is saved or leads to it, what is new is kept only when the reset is
// over, and then by no start forgotten again.
func TestFactoryResetKeepsNothing(t *testing.T) {
	failed := errors.New("the card takes nothing")
	for name, tc := range map[string]struct {
		change func(*Volume, *fake)
		state  model.PermState
		calls  int  // of Forgotten
		gone   bool // nothing of the old one is on the card
	}{
		"good":                      {func(*Volume, *fake) {}, model.PermRemade, 1, true},
		"the superblock's copy":     {func(v *Volume, _ *fake) { v.Superblocks = refusing{failed} }, model.PermVolatile, 0, false},
		"the volume":                {func(v *Volume, _ *fake) { v.Device += "/none" }, model.PermVolatile, 0, false},
		"the template":              {func(v *Volume, _ *fake) { v.Template += ".none" }, model.PermVolatile, 0, false},
		"the end of the request":    {func(v *Volume, _ *fake) { v.Forgotten = func() error { return failed } }, model.PermVolatile, 0, true},
		"the mount of what is new":  {func(_ *Volume, f *fake) { f.mountErrs = []error{errBroken} }, model.PermVolatile, 1, true},
		"half a template was there": {func(v *Volume, f *fake) { f.put("temp") }, model.PermRemade, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{contents: map[string]string{"halo/identity.json": "me"}, writable: true}
			v := volume(t, f)
			const second = 128 << 20 // where ext4 has another superblock
			v.Size = second + 1<<20
			v.Superblocks = new(keeper)
			device := v.Device
			calls := 0
			v.Forgotten = func() error {
				if b, err := os.ReadFile(device); err != nil || !bytes.HasPrefix(b, []byte("template")) {
					t.Errorf("it is over before it is: %v", err)
				}
				calls++
				return nil
			}
			must(t, os.Truncate(device, v.Size))
			d, err := os.OpenFile(device, os.O_RDWR, 0)
			must(t, err)
			defer d.Close()
			_, err = d.WriteAt([]byte(untouched), second)
			must(t, err)
			tc.change(&v, f)
			if r := v.Mount(); r.State != tc.state || !strings.Contains(r.Detail, "factory reset") || calls != tc.calls {
				t.Errorf("got %+v, %d times over", r, calls)
			}
			if got := files(t, v.Target); len(got) != 0 {
				t.Errorf("it was not forgotten: %q", got)
			}
			head, other := make([]byte, 8), make([]byte, 8)
			_, err = d.ReadAt(head, 0)
			must(t, err)
			if _, err = d.ReadAt(other, second); err != nil && tc.gone {
				t.Error(err)
			}
			if gone := string(head) == "template" && string(other) != untouched; gone != tc.gone {
				t.Errorf("on the card there is %q, and %q for another superblock", head, other)
			}
		})
	}
}

// refusing takes no copy of a superblock.
type refusing struct{ err error }

func (r refusing) Load() ([]byte, error) { return nil, r.err }
func (r refusing) Store([]byte) error    { return r.err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMount(t *testing.T) {
	full := map[string]string{
		"halo/identity.json":        "me",
		"halo/gateway/config.db":    strings.Repeat("c", 40),
		"halo/agent/spool/1":        strings.Repeat("s", 30),
		"halo/gateway/telemetry.db": strings.Repeat("t", 60),
		"other":                     "x",
	}
	for name, tc := range map[string]struct {
		fake  fake
		state model.PermState
		want  []string // files that are there in the end
		lost  []string
		grown bool
	}{
		"good": {fake{contents: full}, model.PermOK,
			[]string{"halo/agent/spool/1", "halo/gateway/config.db", "halo/gateway/telemetry.db", "halo/identity.json", "other"}, nil, true},
		"cannot grow": {fake{contents: map[string]string{"a": ""}, growErr: errors.New("too small")}, model.PermOK, []string{"a"}, nil, false},
		"broken, saved in order of worth": {fake{contents: full, broken: true, writable: true}, model.PermRemade,
			[]string{"halo/agent/spool/1", "halo/gateway/config.db", "halo/identity.json", "other"}, []string{"halo/gateway/telemetry.db"}, true},
		"broken, with what an earlier power cut left": {fake{contents: map[string]string{"halo/.tmp-1": strings.Repeat("k", 90), "halo/agent/spool/.tmp-2": "", "other": strings.Repeat("x", 60)},
			broken: true, writable: true}, model.PermRemade, []string{"other"}, nil, true},
		"first superblock gone": {fake{contents: full, broken: true, writable: true, goodSuper: 128 << 10}, model.PermRemade,
			[]string{"halo/agent/spool/1", "halo/gateway/config.db", "halo/identity.json", "other"}, []string{"halo/gateway/telemetry.db"}, true},
		"nothing readable": {fake{contents: full, broken: true, writable: true, goodSuper: -1}, model.PermRemade, nil, []string{"."}, true},
		"card cannot be written": {fake{contents: full, broken: true}, model.PermVolatile,
			[]string{"halo/agent/spool/1", "halo/gateway/config.db", "halo/identity.json", "other"}, []string{"halo/gateway/telemetry.db"}, false},
		"remembers errors, all could be saved": {fake{contents: map[string]string{"halo/identity.json": "me"}, remembered: 3, writable: true}, model.PermDamaged,
			[]string{"halo/identity.json"}, nil, false},
		"remembers errors, cannot be written": {fake{contents: map[string]string{"a": ""}, remembered: 3, readOnly: true}, model.PermReadOnly,
			[]string{"a"}, nil, false},
		"full":      {fake{free: 1000}, model.PermFull, nil, nil, true},
		"read-only": {fake{readOnly: true}, model.PermReadOnly, nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := volume(t, &tc.fake)
			r := v.Mount()
			if r.State != tc.state {
				t.Errorf("state: got %s (%s), want %s", r.State, r.Detail, tc.state)
			}
			if device, err := os.ReadFile(v.Device); err != nil || !tc.fake.broken && string(device) != untouched {
				t.Errorf("a file system that could be mounted was written over: %q, %v", device, err)
			}
			if got := files(t, v.Target); !slices.Equal(got, tc.want) {
				t.Errorf("files: got %q, want %q", got, tc.want)
			}
			if !slices.Equal(r.Lost, tc.lost) {
				t.Errorf("lost: got %q, want %q", r.Lost, tc.lost)
			}
			if r.Grown != tc.grown {
				t.Errorf("grown: got %v", r.Grown)
			}
			if r.State != model.PermOK && r.State != model.PermFull && r.State != model.PermReadOnly && r.Detail == "" {
				t.Error("the report does not say why")
			}
		})
	}
}

// TestEmptyPartition is the first start of a card that plain gok wrote.
func TestEmptyPartition(t *testing.T) {
	f := &fake{broken: true, writable: true, goodSuper: -1}
	v := volume(t, f)
	v.Size = 4096
	if err := os.WriteFile(v.Device, make([]byte, v.Size), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := v.Mount(); r.State != model.PermRemade || len(r.Lost) != 0 || !strings.Contains(r.Detail, "was empty") {
		t.Errorf("got %+v, want it made, and nothing lost", r)
	}
}

// TestOnlyDamageIsOverwritten: trouble of the machine's own never costs a volume.
func TestOnlyDamageIsOverwritten(t *testing.T) {
	wrap := func(e error) error { return fmt.Errorf("mount: %w", e) }
	again := func(e error, n int) []error { return slices.Repeat([]error{wrap(e)}, n) }
	for name, tc := range map[string]struct {
		mount   []error // what mounting says, in order; then it succeeds
		read    error   // what reading without the journal says
		state   model.PermState
		remade  bool
		keepsID bool
	}{
		"no ext4 loaded":                   {again(syscall.ENODEV, 9), wrap(syscall.ENODEV), model.PermVolatile, false, false},
		"busy, but readable":               {again(syscall.EBUSY, 9), nil, model.PermVolatile, false, true},
		"no memory":                        {again(syscall.ENOMEM, 9), wrap(syscall.ENOMEM), model.PermVolatile, false, false},
		"read error that passes":           {again(syscall.EIO, 2), nil, model.PermOK, false, true},
		"read error that stays":            {again(syscall.EIO, mountTries), nil, model.PermRemade, true, true},
		"bad structure":                    {again(syscall.EUCLEAN, 1), nil, model.PermRemade, true, true},
		"bad structure, no memory to read": {again(syscall.EUCLEAN, 1), wrap(syscall.ENOMEM), model.PermVolatile, false, false},
		"no superblock anywhere":           {again(syscall.EINVAL, 1), wrap(syscall.EINVAL), model.PermRemade, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{contents: map[string]string{"halo/identity.json": "me"}, writable: true, mountErrs: tc.mount, readErr: tc.read}
			v := volume(t, f)
			r := v.Mount()
			device, err := os.ReadFile(v.Device)
			if err != nil {
				t.Fatal(err)
			}
			if r.State != tc.state || bytes.HasPrefix(device, []byte("template")) != tc.remade {
				t.Errorf("got %s (%s), card holds %q; want %s, remade %v", r.State, r.Detail, device, tc.state, tc.remade)
			}
			if got := slices.Contains(files(t, v.Target), "halo/identity.json"); got != tc.keepsID {
				t.Errorf("identity is there: %v, want %v", got, tc.keepsID)
			}
		})
	}
}

func TestRestoredRanksReachTheCardInOrder(t *testing.T) {
	f := &fake{contents: map[string]string{"halo/identity.json": "me", "halo/agent/spool/1": "s", "other": "x"}, broken: true, writable: true}
	v := volume(t, f)
	v.Mount()
	if len(f.synced) < 2 || !slices.Contains(f.synced[0], "halo/identity.json") || slices.Contains(f.synced[0], "other") {
		t.Errorf("synced with %q, want the identity on the card before the rest", f.synced)
	}
	if last := f.synced[len(f.synced)-1]; len(last) != 3 {
		t.Errorf("last sync saw %q, want all three files", last)
	}
}

func TestTemplateTooLarge(t *testing.T) {
	v := volume(t, &fake{broken: true, writable: true})
	v.Size = 4
	if r := v.Mount(); r.State != model.PermVolatile || !strings.Contains(r.Detail, "at most 4 octets") {
		t.Errorf("got %s, %s", r.State, r.Detail)
	}
}

// TestRoomBringsTheStateBeforeBack: a card that was made anew or is damaged
// stays so, also for a process that starts while it is full.
func TestRoomBringsTheStateBeforeBack(t *testing.T) {
	for _, state := range []model.PermState{model.PermOK, model.PermRemade, model.PermDamaged} {
		r := model.PermReport{State: state}
		for range 3 {
			if r = Update(r, 1<<30, 0, false); r.State != model.PermFull || r.Before != state {
				t.Errorf("%s without room: got %s, before %q", state, r.State, r.Before)
			}
		}
		for range 2 {
			if r = Update(r, 1<<30, 1<<25, false); r.State != state || r.Before != "" {
				t.Errorf("%s after room was made: got %s, before %q", state, r.State, r.Before)
			}
		}
	}
	if r := Update(model.PermReport{State: model.PermVolatile}, 1<<20, 0, true); r.State != model.PermVolatile {
		t.Errorf("RAM stays volatile: got %s", r.State)
	}
	full := model.PermReport{State: model.PermFull, Before: model.PermRemade}
	if r := Update(full, 1<<30, 1<<25, true); r.State != model.PermReadOnly {
		t.Errorf("full, then read-only: got %s", r.State)
	}
}
