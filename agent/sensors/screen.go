package sensors

import (
	"context"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/drivers/i2c"
)

const screenEvery = 5 * time.Second

// screen has a display show how the device is: a collector that reads nothing.
type screen struct {
	*reader
	display i2c.Display
	lines   func() []string
}

// Collect implements collect.Collector.
func (s *screen) Collect(ctx context.Context) ([]collect.Reading, error) {
	if err := s.use(ctx); err != nil {
		return nil, err
	}
	defer s.done()
	if err := s.display.Show(ctx, s.lines()); err != nil {
		s.doubt(err)
		return nil, err
	}
	s.good("")
	return nil, nil
}
