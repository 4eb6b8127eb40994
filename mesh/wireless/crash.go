package wireless

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"halo.internal/hal/uevent"
	"halo.internal/model"
)

// EventCrashed: the kernel has kept a dump of a radio's firmware; field device.
const EventCrashed = "mesh.radio.crashed"

// mostCrashed bounds the devices that are counted.
const mostCrashed = 64

// followFirmware counts the crashes of firmware that the kernel tells of, until
// ctx ends. Most drivers start it anew by themselves.
func (w *Wireless) followFirmware(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.crashes(ctx, w.noteCrash)
		if ctx.Err() != nil {
			return
		}
		w.c.Log.Debug("crashes of firmware are not heard of", "err", err)
		w.sleep(ctx, time.Minute)
	}
}

func (w *Wireless) noteCrash(device string) {
	w.state.Lock()
	id := ""
	for _, known := range w.ids {
		if strings.HasSuffix(known, " "+device) {
			id = known
		}
	}
	if id != "" && (w.crashed[id] > 0 || len(w.crashed) < mostCrashed) {
		w.crashed[id]++
	}
	w.state.Unlock()
	if id != "" {
		w.notify(EventCrashed, model.Error, "the firmware of radio "+id+" has crashed, and its driver has kept a dump", "device", id)
	}
}

// followCrashes calls told with the name of each device of which a driver makes a
// dump (drivers/base/devcoredump.c).
func followCrashes(ctx context.Context, told func(device string)) (err error) {
	l, err := uevent.Listen()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for {
		e, err := l.Next(ctx)
		if errors.Is(err, uevent.ErrLost) {
			continue
		}
		if err != nil {
			return err
		}
		if device := dumped("/sys", e); device != "" {
			told(device)
		}
	}
}

// dumped returns the device that an event says there is a dump of, below sys.
func dumped(sys string, e uevent.Event) string {
	if e.Action() != "add" || e["SUBSYSTEM"] != "devcoredump" {
		return ""
	}
	to, err := os.Readlink(filepath.Join(sys, e["DEVPATH"], "failing_device"))
	if err != nil {
		return "" // it went with its device
	}
	return filepath.Base(to)
}
