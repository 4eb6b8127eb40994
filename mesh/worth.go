package mesh

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"slices"
	"time"

	"halo.internal/drivers/halow/channel"
	"halo.internal/mesh/batman"
	"halo.internal/model"
)

// BATMAN_V goes by what links are worth in Mbit/s. Of a radio without an estimate of
// its own it takes a third of the rate of the last frame, and a driver of HaLow tells
// rates of channels that are 20 times as wide: beside Ethernet or Wi-Fi such a link
// would be taken for one of the best.
//
// The kernel takes another figure only for an interface as a whole, and all its links
// are alike then. So it is given where figures of different kinds are compared: on
// devices that have another transport. Where HaLow is the only one, all its figures
// are wrong by the same factor, and they tell a weak link from a good one.
const (
	worthEvery  = 30 * time.Second
	worthShare  = 3    // of a rate that remains, as the kernel has it for all radios
	worthLeast  = 0.1  // Mbit/s: the kernel's unit; nothing at all would be the driver's figure
	worthChange = 0.25 // by which a figure has to be wrong to be told anew: all the mesh hears of it
)

// halowWorth returns what the links of each HaLow interface are worth, in Mbit/s and
// whole units of the kernel, and 0 for what is the driver's to tell.
func halowWorth(radios []model.Radio, ports []model.Port) map[string]float64 {
	others := slices.ContainsFunc(ports, func(p model.Port) bool { return len(p.Members) > 0 }) ||
		slices.ContainsFunc(radios, func(r model.Radio) bool { return r.HaLow == "" && r.Linked() > 0 })
	worth := map[string]float64{}
	for _, r := range radios {
		if r.HaLow == "" || r.Iface == "" {
			continue
		}
		worth[r.Iface] = 0
		if others {
			worth[r.Iface] = max(math.Round(middleRate(r)/worthShare*10)/10, worthLeast)
		}
	}
	return worth
}

// middleRate is what frames of a HaLow radio carry to the peer in the middle of all,
// in Mbit/s; as long as none is told, the slowest.
func middleRate(r model.Radio) float64 {
	var rates []float64
	for _, p := range r.Peers {
		if p.Linked && p.TxMbps > 0 {
			rates = append(rates, p.TxMbps)
		}
	}
	if len(rates) == 0 {
		return channel.Slowest(r.WidthMHz / 20)
	}
	slices.Sort(rates)
	return rates[(len(rates)-1)/2]
}

// worthier is what bat0 is told.
type worthier interface {
	Port(iface string) (batman.Port, error)
	Rate(iface string, mbit float64) error
}

// tellWorth has bat0 know what HaLow links are worth.
func tellWorth(bat worthier, worth map[string]float64) error {
	var errs []error
	for iface, mbit := range worth {
		p, err := bat.Port(iface)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // it does not carry the mesh, or not any more
		case err != nil:
		case (p.Throughput == 0) == (mbit == 0) && math.Abs(p.Throughput-mbit) <= worthChange*p.Throughput:
			continue
		default:
			err = bat.Rate(iface, mbit)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// keepWorth does so until ctx ends.
func (u *batUnderlay) keepWorth(ctx context.Context, bat worthier, log *slog.Logger) {
	t := time.NewTicker(worthEvery)
	defer t.Stop()
	for {
		if err := tellWorth(bat, halowWorth(u.Radios(), u.Ports())); err != nil {
			log.Info("the mesh does not know what HaLow links are worth", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
