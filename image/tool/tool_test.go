package tool

import (
	"context"
	"strings"
	"testing"
)

func TestMissingProgramNamesItsPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := find("dtc-that-nobody-has")
	if err == nil || !strings.Contains(err.Error(), "dtc-that-nobody-has is not installed") {
		t.Errorf("got %v", err)
	}
	for name, pkg := range packages() {
		if _, err := find(name); err != nil && !strings.Contains(err.Error(), "apt-get install "+pkg) {
			t.Errorf("%s: got %v, want the package %s", name, err, pkg)
		}
	}
}

func TestFailureCarriesTheProgramsWords(t *testing.T) {
	_, err := Run(context.Background(), "sh", "-c", "echo the disk is full >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "the disk is full") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}

func TestOutputAndInput(t *testing.T) {
	out, err := Command{Name: "sh", Args: []string{"-c", `cat; echo "$X"`}, Env: []string{"X=env"}, Stdin: []byte("in ")}.Run(context.Background())
	if err != nil || string(out) != "in env\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
