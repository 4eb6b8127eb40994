package boot

import (
	"errors"
	"fmt"
	"log/slog"

	"halo.internal/hal/module"
)

// IsModprobe tells whether the kernel called this program to load a module:
// "<path> -q -- <name>".
func IsModprobe(args []string) bool {
	return len(args) == 4 && args[1] == "-q" && args[2] == "--"
}

// Modprobe loads what the kernel asks for. A name that no module has is what
// the kernel asks for most, and no error.
func Modprobe(log *slog.Logger, name string) error {
	l, err := module.Own()
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
