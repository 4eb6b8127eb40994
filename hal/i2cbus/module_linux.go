package i2cbus

import (
	"fmt"

	"halo.internal/hal/module"
)

// Load loads the module by which programs reach buses: no device asks for it.
func Load() error {
	l, err := module.Own()
	if err != nil {
		return fmt.Errorf("module %s: %w", Module, err)
	}
	return l.Load(Module)
}
