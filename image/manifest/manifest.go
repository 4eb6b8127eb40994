// Package manifest reads what an image is made of: gokr-packer.json, the
// packing manifest (kernel series, modules by purpose, firmware, programs per
// role), and boards/*.toml. Both are read strictly: a key nobody reads, a role
// without programs or a board without a name is an error with file and line,
// not an image that lacks something.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"halo.internal/image/layout"
)

// File is the manifest's name at the top of the repository.
const File = "gokr-packer.json"

// Manifest is gokr-packer.json.
type Manifest struct {
	Kernel   Kernel     `json:"kernel"`
	Firmware []Firmware `json:"firmware"`
	// Files that modules of the image name as firmware and HALO does without, by
	// why; * stands for any run of characters.
	FirmwareUnneeded map[string][]string `json:"firmware_unneeded"`
	BuildFlags       []string            `json:"build_flags"`      // of every Go program on the image
	GokrazyPackages  []string            `json:"gokrazy_packages"` // explicit: gokrazy's defaults are not wanted
	Init             string              `json:"init"`             // gokrazy's init with HALO's services
	Roles            map[string]Role     `json:"roles"`
	ImageBytes       int64               `json:"image_bytes"`   // of a card image; /perm grows to the card
	TestPackages     []string            `json:"test_packages"` // Debian's, for the test machine alone
	TestModules      []string            `json:"test_modules"`  // the kernel's, for the test machine alone
}

// Kernel says which kernel and which of its modules.
type Kernel struct {
	Series  string              `json:"series"`  // e.g. 6.12
	Flavour string              `json:"flavour"` // Debian's, e.g. arm64
	Modules map[string][]string `json:"modules"` // by purpose
	// Modules that devices of the boards ask for and HALO does without, by why.
	Unneeded map[string][]string `json:"unneeded"`
	// Modules that no device loads: halo-mesh does, with parameters and when their
	// time has come. They need not be in the image.
	Held    []string `json:"held"`
	Load    []string `json:"load"`    // boot modules that nothing asks for by alias, in order
	Cmdline string   `json:"cmdline"` // without root= and consoles
}

// Firmware is a Debian package and what is taken out of it: path on the image
// to path in the package. Versions and hashes are in the lock file.
type Firmware struct {
	Package   string            `json:"package"`
	Component string            `json:"component"` // of the archive beside main, e.g. non-free-firmware; empty for main
	License   string            `json:"license"`   // path in the package; it goes where the firmware goes
	Files     map[string]string `json:"files"`
}

// LicenseFile is where the license of a package's firmware is on the image.
func (f Firmware) LicenseFile() string { return "/lib/firmware/LICENSE." + f.Package }

// Role is what runs on a gateway or on a node.
type Role struct {
	Hostname string   `json:"hostname"` // also makes the card's partition GUIDs
	Packages []string `json:"packages"`
}

// Boot is the purpose whose modules go into the initramfs as well.
const Boot = "boot"

// Purposes that modules may be named for.
func Purposes() []string {
	return []string{Boot, "mesh", "radio", "overlay", "firewall", "i2c", "serial", "camera", "console", "test"}
}

// Read reads the manifest of the repository at root.
func Read(root string) (Manifest, error) {
	path := filepath.Join(root, File)
	b, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, fmt.Errorf("packing manifest: %w", err)
	}
	return Parse(File, b)
}

// Parse reads a manifest; name is used in errors.
func Parse(name string, b []byte) (Manifest, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var m Manifest
	if err := d.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("%s:%d: %w", name, line(b, d.InputOffset(), err), err)
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// line finds where decoding stopped.
func line(b []byte, offset int64, err error) int {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = syntax.Offset
	} else if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset = kind.Offset
	} else if _, key, ok := strings.Cut(err.Error(), "unknown field "); ok {
		if at := bytes.Index(b, []byte(key)); at >= 0 {
			offset = int64(at)
		}
	}
	return 1 + bytes.Count(b[:min(max(offset, 0), int64(len(b)))], []byte("\n"))
}

var (
	seriesForm  = regexp.MustCompile(`^\d+\.\d+$`)
	moduleForm  = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	nameForm    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

	firmwareForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.,*/-]*$`)
)

func (m Manifest) check() error {
	var errs []error
	bad := func(key, expected string, got any) {
		errs = append(errs, fmt.Errorf("%s: expected %s, got %q", key, expected, fmt.Sprint(got)))
	}
	if !seriesForm.MatchString(m.Kernel.Series) {
		bad("kernel.series", "two numbers such as 6.12", m.Kernel.Series)
	}
	if !nameForm.MatchString(m.Kernel.Flavour) {
		bad("kernel.flavour", "a Debian kernel flavour such as arm64", m.Kernel.Flavour)
	}
	for purpose, names := range m.Kernel.Modules {
		if !slices.Contains(Purposes(), purpose) {
			bad("kernel.modules", "the purposes "+strings.Join(Purposes(), ", "), purpose)
		}
		for _, n := range names {
			if !moduleForm.MatchString(n) {
				bad("kernel.modules."+purpose, "a module's name", n)
			}
		}
	}
	for why, names := range m.Kernel.Unneeded {
		if strings.TrimSpace(why) == "" {
			bad("kernel.unneeded", "a reason", why)
		}
		for _, n := range names {
			if !moduleForm.MatchString(n) {
				bad("kernel.unneeded."+why, "a module's name", n)
			}
		}
	}
	for _, n := range m.Kernel.Held {
		if !moduleForm.MatchString(n) {
			bad("kernel.held", "a module's name", n)
		}
	}
	for _, n := range m.Kernel.Load {
		if !slices.Contains(m.Kernel.Modules[Boot], n) {
			bad("kernel.load", "one of kernel.modules.boot", n)
		}
	}
	if strings.ContainsAny(m.Kernel.Cmdline, "\n\r") || strings.Contains(m.Kernel.Cmdline, "root=") {
		bad("kernel.cmdline", "one line without root=", m.Kernel.Cmdline)
	}
	for _, f := range m.Firmware {
		if !packageForm.MatchString(f.Package) {
			bad("firmware.package", "a Debian package", f.Package)
		}
		if f.Component != "" && !nameForm.MatchString(f.Component) {
			bad("firmware.component", "a component of the archive such as non-free-firmware", f.Component)
		}
		if f.License == "" || !filepath.IsLocal(f.License) {
			bad("firmware.license", "the path of the license in "+f.Package, f.License)
		}
		for to := range f.Files {
			if !strings.HasPrefix(to, "/lib/firmware/") || filepath.Clean(to) != to {
				bad("firmware.files", "a path below /lib/firmware", to)
			}
		}
	}
	for why, names := range m.FirmwareUnneeded {
		if strings.TrimSpace(why) == "" {
			bad("firmware_unneeded", "a reason", why)
		}
		for _, n := range names {
			if !firmwareForm.MatchString(n) {
				bad("firmware_unneeded."+why, "a file below /lib/firmware", n)
			}
		}
	}
	for _, p := range m.TestPackages {
		if !packageForm.MatchString(p) {
			bad("test_packages", "a Debian package", p)
		}
	}
	for _, n := range m.TestModules {
		if !moduleForm.MatchString(n) {
			bad("test_modules", "a module's name", n)
		}
	}
	if m.Init == "" || filepath.Base(m.Init) != "init" {
		bad("init", "a Go package whose last element is init", m.Init)
	}
	for name, r := range m.Roles {
		if !nameForm.MatchString(name) || !nameForm.MatchString(r.Hostname) {
			bad("roles", "names of lower-case letters, digits and hyphens", name+" "+r.Hostname)
		}
		if len(r.Packages) == 0 {
			bad("roles."+name+".packages", "at least one Go package", "none")
		}
	}
	if m.ImageBytes < layout.PermStart+64<<20 || m.ImageBytes%layout.SectorSize != 0 {
		bad("image_bytes", fmt.Sprintf("a multiple of 512 of at least %d", layout.PermStart+64<<20), m.ImageBytes)
	}
	return errors.Join(errs...)
}

// Role returns a role, or an error that lists those there are.
func (m Manifest) Role(name string) (Role, error) {
	r, ok := m.Roles[name]
	if !ok {
		return Role{}, fmt.Errorf("role: expected %s, got %q", strings.Join(slices.Sorted(maps.Keys(m.Roles)), " or "), name)
	}
	return r, nil
}
