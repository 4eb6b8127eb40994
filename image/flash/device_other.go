//go:build !linux

package flash

import (
	"errors"
	"os"
)

// Device is an opened card reader; only Linux has one here.
type Device struct {
	*os.File
	Size int64
}

// Open refuses: what a safe disk is, HALO knows on Linux alone.
func Open(string, bool) (*Device, error) {
	return nil, errors.New("writing cards needs Linux; elsewhere, write the image with the system's own tool and then use halo-image bundle put")
}

// Flush does nothing: no device was opened.
func (*Device) Flush() error { return nil }

// Reread does nothing: no device was opened.
func (*Device) Reread() error { return nil }
