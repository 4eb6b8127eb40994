package devicetree

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/image/manifest"
	"halo.internal/image/tool"
)

// trees compiles a small device tree like the kernel's.
func trees(t *testing.T, cells string) string {
	t.Helper()
	dir := t.TempDir()
	source := `/dts-v1/;
/ { model = "Test Board"; #address-cells = <` + cells + `>; #size-cells = <1>;
	rmem: reserved-memory { #address-cells = <` + cells + `>; #size-cells = <1>; ranges; }; };`
	if _, err := (tool.Command{Name: "dtc", Args: []string{"-q", "-@", "-I", "dts", "-O", "dtb", "-o", filepath.Join(dir, "board.dtb")}, Stdin: []byte(source)}).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBoardsFragmentsApply(t *testing.T) {
	boards, err := manifest.Boards("../..")
	if err != nil {
		t.Fatal(err)
	}
	merged := 0
	for _, b := range boards {
		cells := "1"
		if b.Name == "rpi4b" {
			cells = "2"
		}
		for _, d := range b.DeviceTree {
			d.Source = "board.dtb"
			got, err := Merge(context.Background(), manifest.Board{Name: b.Name, Models: []string{"Test Board"}, DeviceTree: []manifest.DeviceTree{d}}, trees(t, cells), "../../boards")
			if err != nil {
				t.Fatal(err)
			}
			out, err := tool.Command{Name: "fdtget", Args: []string{"-", "/reserved-memory/ramoops@b000000", "compatible"}, Stdin: got[d.File]}.Run(context.Background())
			if err != nil || strings.TrimSpace(string(out)) != "ramoops" {
				t.Errorf("%s: ramoops: got %q, %v", d.File, out, err)
			}
			merged++
		}
	}
	if merged == 0 {
		t.Error("no board has a device tree")
	}
}

func TestRefusals(t *testing.T) {
	dir := trees(t, "1")
	bad := filepath.Join(t.TempDir(), "bad.dtso")
	if err := os.WriteFile(bad, []byte("/dts-v1/; /plugin/; &nowhere { x; };"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		board manifest.Board
		want  string
	}{
		"other model": {manifest.Board{Name: "b", Models: []string{"Another"}, DeviceTree: []manifest.DeviceTree{{File: "b.dtb", Source: "board.dtb"}}},
			`device tree b.dtb of b: expected one of the models ["Another"], got "Test Board"`},
		"no such tree": {manifest.Board{Name: "b", DeviceTree: []manifest.DeviceTree{{File: "b.dtb", Source: "absent.dtb"}}}, "device tree b.dtb of b"},
		"label not in the kernel's tree": {manifest.Board{Name: "b", DeviceTree: []manifest.DeviceTree{{File: "b.dtb", Source: "board.dtb", Fragments: []string{"bad.dtso"}}}},
			"device tree b.dtb of b"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Merge(context.Background(), tc.board, dir, filepath.Dir(bad)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
