package instance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"halo.internal/image/manifest"
)

const root = "../.."

func TestCommittedInstancesAreCurrent(t *testing.T) {
	m, err := manifest.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	boards, err := manifest.Boards(root)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Render(root, m, boards)
	if err != nil {
		t.Fatal(err)
	}
	if err := Drift(root, files); err != nil {
		t.Error(err)
	}
	dirs, err := filepath.Glob(filepath.Join(root, Dir, "*", "config.json"))
	if err != nil || len(files) != 3*len(dirs) {
		t.Errorf("got %d files for the instances %v (%v): is one of them nobody's?", len(files), dirs, err)
	}
}

// repository makes the few files that rendering reads.
func repository(t *testing.T) (string, manifest.Manifest) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module halo.internal\n\ngo 1.26.0\n\nrequire example.org/a v1.2.3\n",
		"go.sum": "example.org/a v1.2.3 h1:x\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, manifest.Manifest{
		BuildFlags: []string{"-trimpath"}, Init: "halo.internal/cmd/init",
		Roles: map[string]manifest.Role{"node": {Hostname: "halo-node", Packages: []string{"halo.internal/cmd/halo-mesh"}}},
	}
}

func TestRenderedConfig(t *testing.T) {
	dir, m := repository(t)
	files, err := Render(dir, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(files[0].Content, &c); err != nil {
		t.Fatal(err)
	}
	if got, ok := c["GokrazyPackages"].([]any); !ok || len(got) != 0 {
		t.Errorf("GokrazyPackages: got %v, want an explicit empty list: gokrazy's default has dhcp and ntp", c["GokrazyPackages"])
	}
	if got := c["Update"].(map[string]any); got["NoPassword"] != true || len(got) != 1 {
		t.Errorf("Update: got %v, want NoPassword alone, so that gokrazy listens on its Unix socket only", got)
	}
	init := c["PackageConfig"].(map[string]any)["halo.internal/cmd/init"].(map[string]any)
	if got := init["ExtraFileContents"].(map[string]any)["/etc/halo/image.json"]; got != "{\"role\":\"node\"}\n" {
		t.Errorf("image.json: got %q", got)
	}
	for _, want := range []string{
		"module gokrazy/build/node\n", "example.org/a v1.2.3 // indirect\n",
		"halo.internal => ../../..\n", "halo.internal/prepared/kernel => ../../prepared/kernel\n",
	} {
		if mod := string(files[1].Content); !strings.Contains(mod, want) {
			t.Errorf("go.mod lacks %q:\n%s", want, mod)
		}
	}
}

func TestABoardWithProgramsHasInstancesOfItsOwn(t *testing.T) {
	dir, m := repository(t)
	boards := []manifest.Board{{Name: "pi"}, {Name: "virt", Packages: []string{"halo.internal/cmd/halo-air"}}}
	files, err := Render(dir, m, boards)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Render(dir, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 6 || len(plain) != 3 || string(files[0].Content) != string(plain[0].Content) {
		t.Errorf("got %d files with boards and %d without; the role's own must stay as it is", len(files), len(plain))
	}
	var c config
	if err := json.Unmarshal(files[3].Content, &c); err != nil {
		t.Fatal(err)
	}
	if files[3].Path != "instance/node-virt/config.json" || c.Hostname != "halo-node" ||
		!slices.Equal(c.Packages, []string{"halo.internal/cmd/halo-mesh", "halo.internal/cmd/halo-air"}) ||
		len(c.PackageConfig["halo.internal/cmd/halo-air"].GoBuildFlags) == 0 {
		t.Errorf("%s: got %+v", files[3].Path, c)
	}
	for i, want := range []string{"node", "node-virt"} {
		if got := Name("node", boards[i]); got != want {
			t.Errorf("instance of %s: got %s, want %s", boards[i].Name, got, want)
		}
	}
}

func TestDriftIsNamedAndWritten(t *testing.T) {
	dir, m := repository(t)
	files, err := Render(dir, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Drift(dir, files); err == nil || !strings.Contains(err.Error(), "halo-image render") {
		t.Errorf("nothing rendered: got %v", err)
	}
	if err := Write(dir, files); err != nil {
		t.Fatal(err)
	}
	if err := Drift(dir, files); err != nil {
		t.Errorf("after writing: %v", err)
	}
	m.Roles["node"] = manifest.Role{Hostname: "halo-other", Packages: []string{"halo.internal/cmd/halo-mesh"}}
	if files, err = Render(dir, m, nil); err != nil {
		t.Fatal(err)
	}
	if err := Drift(dir, files); err == nil || !strings.Contains(err.Error(), "instance/node/config.json differs") {
		t.Errorf("after a change: got %v", err)
	}
}
