package boot

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"halo.internal/hal/module"
	"halo.internal/model/paths"
)

// IsModprobe tells whether the kernel called this program to load a module:
// "<path> -q -- <name>".
func IsModprobe(args []string) bool {
	return len(args) == 4 && args[1] == "-q" && args[2] == "--"
}

// Modprobe loads what the kernel asks for. A name that no module has is what
// the kernel asks for most, and no error.
func Modprobe(log *slog.Logger, name string) error {
	release, err := module.Release()
	if err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	l, err := module.NewLoader(filepath.Join(paths.ModulesDir, release), module.Running{}, module.Params(string(cmdline)))
	if err != nil {
		return err
	}
	if err := l.Load(name); err != nil && !errors.Is(err, module.ErrUnknown) {
		return fmt.Errorf("kernel asks for a module: %w", err)
	}
	if n := l.Count(); n > 0 {
		log.Info("loaded for the kernel", "alias", name, "modules", n)
	}
	return nil
}
