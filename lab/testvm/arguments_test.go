package testvm

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestArguments(t *testing.T) {
	for name, tc := range map[string]struct {
		args    string
		pass    string
		timeout time.Duration
		err     string
	}{
		"what go test says":     {"-test.paniconexit0 -test.timeout=10m0s -test.testlogfile=/tmp/x -test.run=^TestA$ -test.v=true", "-test.paniconexit0 -test.timeout=10m0s -test.run=^TestA$ -test.v=true", 10 * time.Minute, ""},
		"flags of the package":  {"-test.timeout=5s -update", "-test.timeout=5s -update", 5 * time.Second, ""},
		"operands stay":         {"-test.v=true -- -test.testlogfile=x", "-test.v=true -- -test.testlogfile=x", 0, ""},
		"a profile of the host": {"-test.cpuprofile=cpu.out", "", 0, "-test.cpuprofile: not available"},
		"coverage":              {"-test.coverprofile=c.out", "", 0, "-test.coverprofile: not available"},
		"a timeout of no sense": {"-test.timeout=long", "", 0, "-test.timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			pass, timeout, err := arguments(strings.Fields(tc.args))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || !slices.Equal(pass, strings.Fields(tc.pass)) || timeout != tc.timeout {
				t.Errorf("got %q, %s, %v, want %q, %s", pass, timeout, err, tc.pass, tc.timeout)
			}
		})
	}
}

func TestWanted(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a_test.go":       "package a\nfunc TestFast(t *testing.T) {}\n",
		"b_lab_test.go":   "//go:build lab\n\npackage a\nfunc TestMain(m *testing.M) {}\nfunc TestB(t *testing.T) {}\nfunc (x) TestOf() {}\nfunc helper() {}\n",
		"c_test.go":       "// Words.\n\n//go:build linux && lab\n\npackage a_test\nfunc TestC(t *testing.T) {}\n",
		"d_linux_test.go": "//go:build linux\n\npackage a\nfunc TestLinux(t *testing.T) {}\n",
		"other.go":        "//go:build lab\n\npackage a\nfunc TestNone() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"-test.v=true":               "-test.run=^(TestB|TestC)$ -test.v=true",
		"-test.run=Fast -test.v":     "-test.run=Fast -test.v",
		"-test.bench=. -test.run=^$": "-test.bench=. -test.run=^$",
	} {
		if got, err := wanted(strings.Fields(args), dir); err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: got %q, %v, want %q", args, got, err, want)
		}
	}
	if _, err := wanted(nil, filepath.Join(dir, "[")); err == nil {
		t.Error("a folder that cannot be read was taken")
	}
}

func TestLimit(t *testing.T) {
	for _, tc := range []struct {
		o       Options
		timeout time.Duration
		want    time.Duration
	}{
		{Options{}, 10 * time.Minute, 10*time.Minute + overTime},
		{Options{}, 0, noTimeout},
		{Options{Limit: time.Second}, 10 * time.Minute, time.Second},
	} {
		if got := limit(tc.o, tc.timeout); got != tc.want {
			t.Errorf("%+v, timeout %s: got %s, want %s", tc.o, tc.timeout, got, tc.want)
		}
	}
}

func TestBringBack(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := bringBack(map[string][]byte{"testdata/new/a": []byte("x")}); err != nil {
		t.Error(err)
	}
	var got []string
	if err := readTestdata(".", func(name string, b []byte) { got = append(got, name+"="+string(b)) }); err != nil || !slices.Equal(got, []string{"testdata/new/a=x"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, name := range []string{"lab.go", "testdata/../lab.go", "/etc/passwd"} {
		if err := bringBack(map[string][]byte{name: nil}); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}
