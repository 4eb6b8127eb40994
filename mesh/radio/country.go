package radio

import (
	"context"
	"errors"
	"fmt"
	"time"

	"halo.internal/drivers/nl80211"
)

// ErrCountry is wrapped when the kernel has not taken a country.
var ErrCountry = errors.New("the kernel keeps to other rules")

// regulator is what SetCountry asks of the kernel.
type regulator interface {
	Regulatory() (nl80211.Regulatory, error)
	SetCountry(country string) error
	ReloadRegulatory() error
}

// SetCountry has the kernel keep to a country's rules (ISO 3166, two letters),
// and returns when it does. After wait without that the error wraps ErrCountry:
// its database, which is a file of firmware, does not have the country, or is
// not there.
func SetCountry(ctx context.Context, country string, wait time.Duration) (err error) {
	conn, err := nl80211.Dial(nl80211.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	events, err := nl80211.Listen(nl80211.Config{}, nl80211.GroupRegulatory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	return setCountry(ctx, conn, events.Next, country, wait)
}

// setCountry asks twice: the kernel may have looked for its database before there
// was one, and has to be told to look again.
func setCountry(ctx context.Context, kernel regulator, next func(context.Context) (nl80211.Event, error), country string, wait time.Duration) error {
	r, err := kernel.Regulatory()
	if err != nil || r.Country == country {
		return err // asked for what holds, the kernel tells nothing
	}
	var now string
	var reload error
	for try := range 2 {
		if try > 0 {
			reload = kernel.ReloadRegulatory()
		}
		if err := kernel.SetCountry(country); err != nil {
			return err
		}
		if now, err = awaitCountry(ctx, kernel, next, country, wait/2); err != nil || now == country {
			return err
		}
	}
	err = fmt.Errorf("%w (%s) than those of %s, which it was asked to keep to %s ago: its database (regulatory.db) lacks the country, or is not there", ErrCountry, now, country, wait)
	if reload != nil {
		err = fmt.Errorf("%w: %w", err, reload)
	}
	return err
}

// awaitCountry returns the country whose rules hold: the one asked for, or another
// after that time.
func awaitCountry(ctx context.Context, kernel regulator, next func(context.Context) (nl80211.Event, error), country string, wait time.Duration) (string, error) {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		_, late := next(limited)
		if late != nil && limited.Err() == nil {
			return "", late
		}
		// Other radios' own rules come by the same way; what holds, the kernel says.
		now, err := kernel.Regulatory()
		switch {
		case err != nil || now.Country == country:
			return now.Country, err
		case ctx.Err() != nil:
			return "", ctx.Err()
		case late != nil:
			return now.Country, nil
		}
	}
}
