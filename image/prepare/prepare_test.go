package prepare

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/image/manifest"
)

// repository makes a git repository with one commit of a known time.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "model/version/stamp"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("stamp.json\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "-q"}, {"add", "."}, {"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "first"}, {"tag", "v0.1.0"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE=2026-11-05T06:07:08Z", "GIT_COMMITTER_DATE=2026-11-05T06:07:08Z", "GIT_CONFIG_GLOBAL="+os.DevNull)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

func TestStamp(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	dir := repository(t)
	path := filepath.Join(dir, stampFile)
	info, err := Stamp(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Version != "v0.1.0" || len(info.Commit) != 40 || info.Built.Format("2006-01-02T15:04:05Z") != "2026-11-05T06:07:08Z" {
		t.Errorf("got %+v, want the tag, the commit and the commit's time", info)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var written map[string]any
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &written); err != nil || written["commit"] != info.Commit {
		t.Errorf("stamp.json: got %s, %v", b, err)
	}

	if _, err := Stamp(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("an unchanged stamp was written again (%v)", err)
	}

	t.Setenv("SOURCE_DATE_EPOCH", "1793491200")
	if info, err = Stamp(context.Background(), dir); err != nil || info.Built.Unix() != 1793491200 {
		t.Errorf("SOURCE_DATE_EPOCH: got %v, %v", info.Built, err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, err = Stamp(context.Background(), dir); err == nil || !strings.Contains(err.Error(), `got "yesterday"`) {
		t.Errorf("bad SOURCE_DATE_EPOCH: got %v", err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("stamp.json\nx\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if info, err = Stamp(context.Background(), dir); err != nil || !strings.HasSuffix(info.Commit, "-dirty") || !strings.HasSuffix(info.Version, "-dirty") {
		t.Errorf("changed files: got %+v, %v, want -dirty", info, err)
	}
}

func TestKernelNames(t *testing.T) {
	form := kernelForm(manifest.Kernel{Series: "6.12", Flavour: "arm64"})
	for name, want := range map[string]bool{
		"linux-image-6.12.117+deb12-arm64":       true,
		"linux-image-6.12.9+bpo-arm64":           true,
		"linux-image-6.12.63-arm64":              true,
		"linux-image-6.12.63+deb13-arm64":        true,
		"linux-image-6.12.117+deb12-cloud-arm64": false,
		"linux-image-6.12.117+deb12-rt-arm64":    false,
		"linux-image-6.12.117+deb12-arm64-16k":   false,
		"linux-image-6.12.117+deb12-arm64-dbg":   false,
		"linux-image-6.1.0-50-arm64":             false,
		"linux-image-6.12-arm64":                 false,
		"linux-image-6x12.1-arm64":               false,
	} {
		if got := form.FindString(name) == name; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestBootText(t *testing.T) {
	if got, want := Cmdline([]string{"tty1", "ttyS1,115200"}, "root=X", "ro"), "console=tty1 console=ttyS1,115200 root=X ro"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := ConfigTXT([]string{"arm_64bit=1"}), "arm_64bit=1\nkernel=vmlinuz\ninitramfs initrd.bin followkernel\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFence(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := Fence(dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err != nil || !strings.Contains(string(b), "\nmodule ") {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestExclusive(t *testing.T) {
	root := t.TempDir()
	release, err := Exclusive(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Exclusive(soon, root); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("two builds at once, or one that does not end (%v)", err)
	}
	got := make(chan error, 1)
	go func() {
		again, err := Exclusive(t.Context(), root)
		if err == nil {
			err = again()
		}
		got <- err
	}()
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestAddFirmware(t *testing.T) {
	folder := func(files map[string]int) string {
		dir := t.TempDir()
		for name, size := range files {
			if err := put(dir, name, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	files := map[string][]byte{"/lib/firmware/regulatory.db": {1}}
	if err := addFirmware(files, folder(map[string]int{"morse/mm6108.bin": 3, "morse/bcf_fgh100mabmd.bin": 2})); err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 || len(files["/lib/firmware/morse/mm6108.bin"]) != 3 {
		t.Errorf("got %v", files)
	}
	linked := folder(map[string]int{"a": 1})
	if err := os.Symlink("/etc/passwd", filepath.Join(linked, "b")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ dir, want string }{
		"empty":   {folder(nil), "found none"},
		"missing": {"/nowhere", "/nowhere"},
		"there":   {folder(map[string]int{"regulatory.db": 1}), "is in the image already, by gokr-packer.json"},
		"huge":    {folder(map[string]int{"disk.img": mostFirmware + 1}), "expected at most"},
		"a link":  {linked, "files and folders only"},
	} {
		if err := addFirmware(files, tc.dir); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}
