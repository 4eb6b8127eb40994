package module

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// record is a kernel that remembers what it was given.
type record struct {
	dir     string
	got     []string
	fails   string
	loaded  map[string]State
	users   map[string][]string
	removed []string
	hangs   chan struct{} // Remove waits for it
	asked   atomic.Int32  // how often it was to remove something
}

func (r *record) Insert(path, params string) error {
	rel, err := filepath.Rel(r.dir, path)
	if err != nil {
		return err
	}
	if rel == r.fails {
		return errors.New("invalid module format")
	}
	n := normalize(rel)
	if _, ok := r.loaded[n]; ok {
		return unix.EEXIST
	}
	r.got = append(r.got, strings.TrimSpace(rel+" "+params))
	if r.loaded == nil {
		r.loaded = map[string]State{}
	}
	r.loaded[n] = State{}
	return nil
}

func (r *record) Remove(name string) error {
	r.asked.Add(1)
	if r.hangs != nil {
		<-r.hangs
	}
	if s := r.loaded[name]; s.Refs > 0 {
		return unix.EWOULDBLOCK
	}
	delete(r.loaded, name)
	for n, s := range r.loaded {
		if i := slices.Index(s.Holders, name); i >= 0 {
			r.loaded[n] = State{s.Refs - 1, slices.Delete(slices.Clone(s.Holders), i, i+1)}
		}
	}
	r.removed = append(r.removed, name)
	return nil
}

func (r *record) Users(name string) []string { return r.users[name] }

func (r *record) Loaded() (map[string]State, error) {
	m := parseLoaded([]byte("virtio 16384 0 - Live 0x0\nmbcache 16384 1 ext4, Loading 0x0\n"))
	maps.Copy(m, r.loaded)
	return m, nil
}

func tree(t *testing.T, params map[string]string) (*Loader, *record) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"modules.dep": `kernel/fs/ext4.ko.xz: kernel/lib/jbd2.ko.xz kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz
kernel/lib/jbd2.ko.xz: kernel/lib/crc16.ko.xz
kernel/lib/crc16.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/crypto/crc32c-generic.ko.xz:
kernel/net/batman-adv.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/net/virtio_net.ko.xz:
kernel/net/brcmfmac.ko:
kernel/net/brcmfmac-wcc.ko: kernel/net/brcmfmac.ko
kernel/a.ko:
kernel/b.ko:
`,
		"modules.softdep": "# made by hand\nsoftdep ext4 pre: crc32c\nsoftdep libcrc32c pre: crc32c\nsoftdep brcmfmac post: brcmfmac-wcc\nsoftdep a pre: b\nsoftdep b pre: a nowhere\n",
		"modules.alias": `alias crc32c crc32c_generic
alias fs-ext4 ext4
alias rtnl-link-batadv batman_adv
alias virtio:d00000001v* virtio_net
alias of:N*T*Cbrcm,bcm43[0-4]?-fmacC* brcmfmac
alias net-pf-16-proto-16-family-batadv batman_adv
`,
		"modules.builtin": "kernel/drivers/tty/serial/amba-pl011.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := &record{dir: dir}
	l, err := NewLoader(dir, r, params)
	if err != nil {
		t.Fatal(err)
	}
	return l, r
}

func TestLoad(t *testing.T) {
	for name, tc := range map[string]struct {
		load []string
		want []string
	}{
		"dependencies and soft dependencies first": {[]string{"ext4"}, []string{
			"kernel/crypto/crc32c-generic.ko.xz", "kernel/fs/mbcache.ko.xz", "kernel/lib/crc16.ko.xz", "kernel/lib/jbd2.ko.xz", "kernel/fs/ext4.ko.xz"}},
		"soft dependency of a dependency": {[]string{"batman-adv"}, []string{
			"kernel/crypto/crc32c-generic.ko.xz", "kernel/lib/libcrc32c.ko.xz", "kernel/net/batman-adv.ko.xz"}},
		"kernel's own request":       {[]string{"rtnl-link-batadv", "net-pf-16-proto-16-family-batadv"}, []string{"kernel/crypto/crc32c-generic.ko.xz", "kernel/lib/libcrc32c.ko.xz", "kernel/net/batman-adv.ko.xz"}},
		"device":                     {[]string{"virtio:d00000001v00001AF4"}, []string{"kernel/net/virtio_net.ko.xz"}},
		"device tree, set, and post": {[]string{"of:NwifiT(null)Cbrcm,bcm4329-fmacCbrcm,x/y"}, []string{"kernel/net/brcmfmac.ko", "kernel/net/brcmfmac-wcc.ko"}},
		"each once":                  {[]string{"virtio_net", "virtio-net"}, []string{"kernel/net/virtio_net.ko.xz"}},
		"loaded before":              {[]string{"virtio"}, nil},
		"built in":                   {[]string{"amba_pl011"}, nil},
		"circle of soft dependencies, one unknown": {[]string{"a"}, []string{"kernel/b.ko", "kernel/a.ko"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, r := tree(t, nil)
			for _, n := range tc.load {
				if err := l.Load(n); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(r.got, tc.want) {
				t.Errorf("got  %q\nwant %q", r.got, tc.want)
			}
			if l.Count() != len(tc.want) {
				t.Errorf("count: got %d, want %d", l.Count(), len(tc.want))
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	l, r := tree(t, nil)
	if err := l.Load("of:NnothingT(null)"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown alias: got %v, want ErrUnknown", err)
	}
	r.fails = "kernel/lib/crc16.ko.xz"
	if err := l.Load("ext4"); err == nil || !strings.Contains(err.Error(), "crc16") {
		t.Errorf("failing dependency: got %v, want an error that names crc16", err)
	}
	if slices.Contains(r.got, "kernel/fs/ext4.ko.xz") {
		t.Error("ext4 was loaded without what it depends on")
	}
	r.fails = ""
	if err := l.Load("ext4"); err != nil {
		t.Errorf("after the cause was gone: %v", err)
	}
}

func TestColdplug(t *testing.T) {
	l, r := tree(t, map[string]string{"virtio_net": "napi_tx=1"})
	sys := t.TempDir()
	for _, dev := range []string{"bus/virtio/devices/virtio0", "bus/virtio/devices/virtio1", "bus/platform/devices/unknown"} {
		if err := os.MkdirAll(filepath.Join(sys, dev), 0o755); err != nil {
			t.Fatal(err)
		}
		alias := "virtio:d00000001v00001AF4\n"
		if strings.HasSuffix(dev, "unknown") {
			alias = "platform:unknown\n"
		}
		if err := os.WriteFile(filepath.Join(sys, dev, "modalias"), []byte(alias), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Coldplug(sys); err != nil {
		t.Fatal(err)
	}
	if want := []string{"kernel/net/virtio_net.ko.xz napi_tx=1"}; !slices.Equal(r.got, want) {
		t.Errorf("got %q, want %q", r.got, want)
	}
}

func TestParams(t *testing.T) {
	got := Params("console=ttyAMA0 mac80211_hwsim.radios=2 mac80211-hwsim.channels=1 ramoops.mem_address=0x1 .x=1 x.=1 halo.slot=a\n")
	want := map[string]string{"mac80211_hwsim": "radios=2 channels=1", "ramoops": "mem_address=0x1", "halo": "slot=a"}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIndexRefusals(t *testing.T) {
	for name, tc := range map[string]struct{ file, content, want string }{
		"no index":           {"modules.alias", "", "modules.dep"},
		"path leaves folder": {"modules.dep", "../../etc/x.ko:\n", "modules.dep:1"},
		"no colon":           {"modules.dep", "kernel/a.ko\n", "modules.dep:1"},
		"endless line":       {"modules.dep", strings.Repeat("x", 300<<10), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tc.file), []byte(tc.content), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := NewLoader(dir, &record{dir: dir}, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"usb:v0BDAp8179d*dc*", "usb:v0BDAp8179d0200dc00dsc00", true},
		{"usb:v0BDAp8179d*dc*", "usb:v0BDAp8178d0200dc00dsc00", false},
		{"of:N*T*Ca/b", "of:NxTyCa/b", true},
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"d[0-9A-F]e", "dBe", true},
		{"d[0-9A-F]e", "dGe", false},
		{"d[09]e", "d9e", true},
		{"d[", "d[", false},
		{"d[]e", "d]e", false},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "axxbyy", false},
		{"a**", "a", true},
	} {
		if got := glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("glob(%q, %q) = %v, want %v", tc.pattern, tc.s, got, tc.want)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("usb:v0BDAp*d[0-9]*dc*", "usb:v0BDAp8179d0dc")
	f.Add("[", "[")
	f.Add("[a-", "a")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if glob(pattern, s) && !glob(pattern+"*", s+"x") {
			t.Errorf("%q matches %q, but not with * behind", pattern, s)
		}
		if !strings.ContainsAny(s, "*?[") && !glob(s, s) {
			t.Errorf("%q does not match itself", s)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\n", "alias a:* b\nalias * a\n", "softdep a pre: b post: a:x\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, dep, alias, soft string) {
		for name, content := range map[string]string{"modules.dep": dep, "modules.alias": alias, "modules.softdep": soft} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r := &record{dir: dir}
		l, err := NewLoader(dir, r, nil)
		if err != nil {
			return
		}
		for _, n := range []string{"a", "a:x", "b"} {
			_ = l.Load(n)
		}
		if slices.ContainsFunc(r.got, func(s string) bool { return strings.HasPrefix(s, "..") }) {
			t.Errorf("loaded from outside: %q", r.got)
		}
	})
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, modalias string
		want              bool
	}{
		{"of:N*T*Cbrcm,bcm2835-i2cC*", "of:Ni2cT(null)Cbrcm,bcm2835-i2cCother", true},
		{"of:N*T*Cbrcm,bcm2835_i2c", "of:Ni2cT(null)Cbrcm,bcm2835-i2c", true},
		{"of:N*T*Cbrcm,bcm2835-i2c", "of:Ni2cT(null)Cbrcm,bcm2835-i2cCother", false},
		{"mdio:0110000000001101100001001010????", "mdio:01100000000011011000010010100010", true},
	} {
		if got := Matches(tc.pattern, tc.modalias); got != tc.want {
			t.Errorf("%s, %s: got %v", tc.pattern, tc.modalias, got)
		}
	}
}
