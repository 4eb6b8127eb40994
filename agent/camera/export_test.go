package camera

import "halo.internal/hal/v4l2"

// Converter makes pictures of frames, for tests of what a kernel's driver sends.
func Converter(f v4l2.Format, quality int) (func([]byte) ([]byte, error), error) {
	c, err := newConverter(f, quality)
	if err != nil {
		return nil, err
	}
	return c.picture, nil
}

// Formats are those that pictures can be made of.
var Formats = usable
