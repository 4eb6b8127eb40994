package guest

import (
	"os"
	"path/filepath"

	"halo.internal/hal/module"
	"halo.internal/model/paths"
)

// testCamera is the kernel's driver of a camera that draws its pictures itself.
const testCamera = "vivid"

// Camera gives the machine a camera, where its kernel's command line has settings of the
// driver's, such as vivid.n_devs=1.
func Camera() error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	settings := module.Params(string(cmdline))
	if settings[testCamera] == "" {
		return nil
	}
	release, err := module.Release()
	if err != nil {
		return err
	}
	l, err := module.NewLoader(filepath.Join(paths.ModulesDir, release), module.Running{}, settings)
	if err != nil {
		return err
	}
	return l.Load(testCamera)
}
