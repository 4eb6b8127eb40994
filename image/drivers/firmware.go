package drivers

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"halo.internal/image/manifest"
)

// CheckFirmware returns an error that names every file that a module of the
// image says it loads and that is neither in the image nor said to be unneeded:
// without it an adapter is plugged in and nothing happens. asked is those files
// by module, as kernel.Index.Firmware has them. A file that no module asks for,
// or that is called unneeded for nothing, is an error too.
func CheckFirmware(asked map[string][]string, m manifest.Manifest) error {
	there := map[string]bool{} // whether it was asked for, by path below /lib/firmware
	for _, f := range m.Firmware {
		for to := range f.Files {
			there[strings.TrimPrefix(to, "/lib/firmware/")] = false
		}
	}
	unneeded := map[string]bool{} // whether it was asked for, by pattern
	for _, patterns := range m.FirmwareUnneeded {
		for _, p := range patterns {
			unneeded[p] = false
		}
	}
	var errs []error
	for _, module := range slices.Sorted(maps.Keys(asked)) {
		for _, file := range asked[module] {
			found := false
			for name := range there {
				if match(file, name) {
					there[name], found = true, true
				}
			}
			for pattern := range unneeded {
				if pattern == file || match(pattern, file) {
					if there[file] {
						errs = append(errs, fmt.Errorf("firmware %s is called unneeded (%s), and is in the image", file, pattern))
					}
					unneeded[pattern], found = true, true
				}
			}
			if !found {
				errs = append(errs, fmt.Errorf("module %s loads firmware %s: expected it in firmware or firmware_unneeded of %s", module, file, manifest.File))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if !there[name] {
			errs = append(errs, fmt.Errorf("firmware %s: no module of the image loads it", name))
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(unneeded)) {
		if !unneeded[pattern] {
			errs = append(errs, fmt.Errorf("firmware %s is called unneeded, and no module of the image asks for it", pattern))
		}
	}
	return errors.Join(errs...)
}

// match tells whether a name is one of those that a pattern stands for, in which
// * is any run of characters but slashes. Nothing else is special there.
func match(pattern, name string) bool {
	ok, err := path.Match(strings.NewReplacer("[", `\[`, "?", `\?`, `\`, `\\`).Replace(pattern), name)
	return err == nil && ok
}
