package air

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"halo.internal/lab/air/hwsim"
)

// Medium is where frames come from and go to: *hwsim.Medium, or a test's.
type Medium interface {
	Next() (hwsim.Frame, error)
	Deliver(receiver net.HardwareAddr, data []byte, rate, signalDBm, freqMHz int) error
	Report(f hwsim.Frame, ack bool, signalDBm int, did hwsim.Attempts) error
	Close() error
}

var _ Medium = (*hwsim.Medium)(nil)

// Run carries the frames of m until ctx ends, or m does. It closes m. Each
// frame is delivered when its airtime is over, and a channel carries one at a
// time.
func (a *Air) Run(ctx context.Context, m Medium) error {
	ctx, cancel := context.WithCancel(ctx)
	frames := make(chan hwsim.Frame, 256)
	var reading sync.WaitGroup
	var readErr error
	reading.Go(func() {
		defer cancel()
		readErr = read(ctx, m, frames)
	})
	err := a.deliver(ctx, m, frames)
	ended := ctx.Err() // before our own cancel
	cancel()
	err = errors.Join(err, m.Close())
	reading.Wait()
	if ended != nil && readErr != nil && !errors.Is(readErr, context.Canceled) {
		return errors.Join(readErr, err)
	}
	return err
}

func read(ctx context.Context, m Medium, to chan<- hwsim.Frame) error {
	for {
		f, err := m.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, syscall.ENOBUFS) {
			continue // the radios take it for silence
		}
		if err != nil {
			return err
		}
		select {
		case to <- f:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// due is a frame on its way.
type due struct {
	at    time.Time
	order int // of equal times
	frame hwsim.Frame
	fate  fate
}

type schedule []due

func (s schedule) Len() int { return len(s) }
func (s schedule) Less(i, j int) bool {
	return s[i].at.Before(s[j].at) || s[i].at.Equal(s[j].at) && s[i].order < s[j].order
}
func (s schedule) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(x any)   { *s = append(*s, x.(due)) }
func (s *schedule) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}

func (a *Air) deliver(ctx context.Context, m Medium, frames <-chan hwsim.Frame) error {
	var waiting schedule
	free := map[int]time.Time{} // when a channel is free, by MHz
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case f := <-frames:
			v := a.carry(f)
			at := time.Now()
			if busy := free[f.FreqMHz]; busy.After(at) {
				at = busy
			}
			at = at.Add(v.airtime.Airtime)
			free[f.FreqMHz] = at
			heap.Push(&waiting, due{at, n, f, v})
		case <-timer.C:
		}
		for len(waiting) > 0 && !time.Now().Before(waiting[0].at) {
			if err := hand(m, heap.Pop(&waiting).(due)); err != nil {
				return err
			}
		}
		if len(waiting) > 0 {
			timer.Reset(time.Until(waiting[0].at))
		}
	}
}

// hand gives a frame to those who hear it and the report to who sent it, in the
// order of the air: the acknowledgement comes last.
func hand(m Medium, d due) error {
	for _, h := range d.fate.hearings {
		if err := m.Deliver(h.radio.Address, d.frame.Data, d.fate.rate, h.signal, d.frame.FreqMHz); err != nil {
			return fmt.Errorf("air: to %s: %w", h.radio.Name, err)
		}
	}
	// A radio without a place hears nothing back, and must be told so.
	return m.Report(d.frame, d.fate.acked, d.fate.signal, d.fate.did)
}
