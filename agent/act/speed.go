package act

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"halo.internal/agent/command"
	"halo.internal/agent/speedtest"
	"halo.internal/model"
)

// overlaid tells whether the device is in the overlay.
func (d Device) overlaid() error {
	_, err := d.overlay()
	return err
}

func (d Device) overlay() (netip.Addr, error) {
	a, err := netip.ParseAddr(d.Status().OverlayV4)
	if err != nil {
		return a, model.RefuseCommand(model.CodeNoOverlay, "the device has no overlay address yet")
	}
	return a, nil
}

// airtimeShare is how much of the airtime that the law leaves a radio in this hour one
// test may take.
const airtimeShare = 0.25

// slowest is what a HaLow channel of 1 MHz carries, in octets a second: a duty cycle is
// a matter of such channels.
const slowest = 150_000 / 8

// airtime refuses a test that would leave a radio with a duty cycle too little time to
// send what it has to. Where halo-mesh does not answer nothing is known of one.
func (d Device) airtime(ctx context.Context, sends int, limit time.Duration) error {
	laws, err := d.Mesh.Legal(ctx)
	if err != nil {
		return nil
	}
	needs := min(float64(sends)/slowest, limit.Seconds())
	for _, l := range laws {
		if l.Radio == "" || l.AirtimeMaxS == 0 {
			continue
		}
		if left := l.AirtimeMaxS - l.AirtimeS; needs > left*airtimeShare {
			return model.RefuseCommand(model.CodeAirtime, "radio %s may send for %.0f s of an hour and has sent for %.0f: a test that takes up to %.0f s would leave too little", l.Radio, l.AirtimeMaxS, l.AirtimeS, needs)
		}
	}
	return nil
}

// speedTest measures the way to another device.
func (d Device) speedTest(ctx context.Context, t *command.Task) (command.Result, error) {
	q := t.SpeedTest
	limit := time.Duration(q.LimitMS) * time.Millisecond
	if err := d.airtime(ctx, int(q.UpBytes), limit); err != nil {
		return command.Result{}, err
	}
	res, err := speedtest.Measure(ctx, d.Peer(q.Peer), speedtest.Request{Ticket: q.Ticket, Down: int(q.DownBytes), Up: int(q.UpBytes), Limit: limit})
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return command.Result{}, model.RefuseCommand(model.CodeUnreachable, "the other device cannot be reached: %v", err)
	}
	if err != nil {
		return command.Result{}, err
	}
	return command.Result{Value: res}, nil
}

// speedServe is the other side of it.
func (d Device) speedServe(ctx context.Context, t *command.Task) (command.Result, error) {
	q := t.SpeedServe
	limit := time.Duration(q.LimitMS) * time.Millisecond
	own, err := d.overlay()
	if err != nil {
		return command.Result{}, err
	}
	if err := d.airtime(ctx, int(q.DownBytes), limit); err != nil {
		return command.Result{}, err
	}
	l, err := d.Listen(own)
	if err != nil {
		return command.Result{}, err
	}
	defer l.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(q.WaitMS)*time.Millisecond, errors.New("it was not done in time"))
	defer cancel()
	t.Progress(1, "it waits for the device that measures") // by which the gateway knows that that may come
	sent, received, err := speedtest.Serve(ctx, l, q.Peer, speedtest.Request{Ticket: q.Ticket, Down: int(q.DownBytes), Up: int(q.UpBytes), Limit: limit})
	if err != nil {
		return command.Result{}, err
	}
	return command.Result{Value: map[string]int64{"sent": sent, "received": received}}, nil
}
