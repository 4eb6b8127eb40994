package reset

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Request is what asks the next start for the reset.
type Request interface {
	Ask(by string) error
	// Withdraw takes it back where no start has begun with it, and tells who had asked;
	// empty: nobody had.
	Withdraw() (by string, err error)
}

// Patience is how long a machine may take to end.
const Patience = 3 * time.Minute

// Restart has the machine start anew, once the reset was asked for. Where that does not
// come about the request is withdrawn: a start some day is not to be a reset that nobody
// expects any more. When ctx ends, which is how it comes about, nothing is.
func Restart(ctx context.Context, r Request, reboot func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	err := reboot(limit)
	if err == nil {
		<-limit.Done()
		err = fmt.Errorf("the machine was to start anew, and goes on after %s", Patience)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, undone := r.Withdraw()
	return errors.Join(err, undone)
}
