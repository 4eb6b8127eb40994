// Package instance renders gokrazy's view of HALO: instance/<role>/config.json
// and the go.mod and go.sum in its builddir, and the same once more as
// <role>-<board> for each board with programs of its own, all from the packing
// manifest, the board files and the repository's own go.mod. The result is
// committed, so that plain gok builds the same image as halo-image; a test fails
// when the two drift apart.
package instance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/modfile"

	"halo.internal/image/manifest"
	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
)

// Dir is the folder of the instances at the top of the repository.
const Dir = "instance"

// Folders below Dir that `halo-image prepare` fills and gok reads; they are not
// committed.
const (
	Prepared = "prepared"
	Kernel   = "kernel"
	Firmware = "firmware"
	Files    = "files" // firmware for the kernel's drivers
)

// module is the path of the generated modules around what was prepared.
const module = "halo.internal/prepared/"

// File is one rendered file.
type File struct {
	Path    string // relative to the top of the repository
	Content []byte
}

// config is the part of gokrazy's instance configuration that HALO sets.
type config struct {
	Hostname                   string
	Update                     struct{ NoPassword bool }
	Environment                []string
	Packages                   []string
	PackageConfig              map[string]packageConfig
	SerialConsole              string
	GokrazyPackages            []string
	KernelPackage              string
	FirmwarePackage            string
	EEPROMPackage              string
	InternalCompatibilityFlags struct{ InitPkg string }
}

type packageConfig struct {
	GoBuildFlags      []string          `json:",omitempty"`
	ExtraFilePaths    map[string]string `json:",omitempty"`
	ExtraFileContents map[string]string `json:",omitempty"`
}

// Name returns the name of the instance from which images of a role for a board
// are built. Boards without programs of their own share that of the role.
func Name(role string, b manifest.Board) string {
	if len(b.Packages) == 0 {
		return role
	}
	return role + "-" + b.Name
}

// Render returns the files of every instance for the repository at root.
func Render(root string, m manifest.Manifest, boards []manifest.Board) ([]File, error) {
	var files []File
	for _, role := range slices.Sorted(maps.Keys(m.Roles)) {
		rendered := map[string]bool{}
		// The role's own first: an instance of it alone is there whatever boards are.
		for _, board := range append([]manifest.Board{{}}, boards...) {
			name := Name(role, board)
			if rendered[name] {
				continue
			}
			rendered[name] = true
			c, err := renderConfig(m, role, board.Packages)
			if err != nil {
				return nil, err
			}
			mod, sum, err := renderModule(root, name)
			if err != nil {
				return nil, err
			}
			dir := filepath.Join(Dir, name)
			files = append(files,
				File{filepath.Join(dir, "config.json"), c},
				File{filepath.Join(dir, "builddir", "go.mod"), mod},
				File{filepath.Join(dir, "builddir", "go.sum"), sum},
			)
		}
	}
	return files, nil
}

// renderConfig renders the instance of a role with further packages.
func renderConfig(m manifest.Manifest, role string, further []string) ([]byte, error) {
	r := m.Roles[role]
	packages := slices.Concat(r.Packages, further)
	c := config{
		Hostname:      r.Hostname,
		Environment:   []string{"GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0"},
		Packages:      packages,
		PackageConfig: map[string]packageConfig{},
		// The consoles are on the kernel's command line, per board.
		SerialConsole:   "disabled",
		GokrazyPackages: append([]string{}, m.GokrazyPackages...),
		KernelPackage:   module + Kernel,
		FirmwarePackage: module + Firmware,
	}
	// Without a password, gokrazy listens on its Unix socket alone.
	c.Update.NoPassword = true
	c.InternalCompatibilityFlags.InitPkg = m.Init
	for _, pkg := range slices.Concat(packages, m.GokrazyPackages) {
		c.PackageConfig[pkg] = packageConfig{GoBuildFlags: m.BuildFlags}
	}
	info, err := json.Marshal(map[string]string{"role": role})
	if err != nil {
		return nil, err
	}
	// gok takes files from the packages that it builds; those of the image as a
	// whole are the init's.
	c.PackageConfig[m.Init] = packageConfig{
		GoBuildFlags: m.BuildFlags,
		ExtraFileContents: map[string]string{
			paths.ImageInfo:       string(info) + "\n",
			paths.Boot + "/EMPTY": "The boot partition is mounted here.\n",
		},
		ExtraFilePaths: map[string]string{"/lib/firmware": filepath.Join("..", Prepared, Files)},
	}

	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "    ")
	e.SetEscapeHTML(false)
	if err := e.Encode(c); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// renderModule makes a builddir's go.mod out of the repository's: the same
// versions, so that gok builds what the tests tested.
func renderModule(root, name string) (mod, sum []byte, err error) {
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, nil, err
	}
	own, err := modfile.Parse("go.mod", b, nil)
	if err != nil {
		return nil, nil, err
	}
	f := new(modfile.File)
	if err := f.AddModuleStmt("gokrazy/build/" + name); err != nil {
		return nil, nil, err
	}
	f.AddComment("// Rendered by halo-image render from the go.mod at the top; do not edit.")
	if err := f.AddGoStmt(own.Go.Version); err != nil {
		return nil, nil, err
	}
	up := filepath.Join("..", "..", "..")
	for _, r := range []struct{ path, dir string }{
		{own.Module.Mod.Path, up},
		{module + Kernel, filepath.Join("..", "..", Prepared, Kernel)},
		{module + Firmware, filepath.Join("..", "..", Prepared, Firmware)},
	} {
		f.AddNewRequire(r.path, "v0.0.0", false)
		if err := f.AddReplace(r.path, "", filepath.ToSlash(r.dir), ""); err != nil {
			return nil, nil, err
		}
	}
	for _, r := range own.Require {
		f.AddNewRequire(r.Mod.Path, r.Mod.Version, true)
	}
	f.Cleanup()
	if mod, err = f.Format(); err != nil {
		return nil, nil, err
	}
	sum, err = os.ReadFile(filepath.Join(root, "go.sum"))
	return mod, sum, err
}

// Drift returns an error that names a rendered file whose content differs from
// what lies in the repository, or nil.
func Drift(root string, files []File) error {
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(root, f.Path))
		if err != nil {
			return fmt.Errorf("%s: %w; run halo-image render and commit", f.Path, err)
		}
		if !bytes.Equal(got, f.Content) {
			return fmt.Errorf("%s differs from what %s, %s/ and go.mod say; run halo-image render and commit", f.Path, manifest.File, manifest.BoardsDir)
		}
	}
	return nil
}

// Write writes the files that differ.
func Write(root string, files []File) error {
	for _, f := range files {
		if Drift(root, []File{f}) == nil {
			continue
		}
		path := filepath.Join(root, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := atomicfile.Write(path, f.Content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
