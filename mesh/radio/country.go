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
	now, err := conn.Regulatory()
	if err != nil || now.Country == country {
		return err // asked for what holds, the kernel tells nothing
	}
	if err := conn.SetCountry(country); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		_, late := events.Next(limited)
		if late != nil && limited.Err() == nil {
			return late
		}
		// Other radios' own rules come by the same way; what holds, the kernel says.
		if now, err = conn.Regulatory(); err != nil || now.Country == country {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if late != nil {
			return fmt.Errorf("%w (%s) than those of %s, as asked %s ago: is there a regulatory.db, and does it have the country?", ErrCountry, now.Country, country, wait)
		}
	}
}
