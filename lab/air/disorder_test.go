package air

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/lab/air/hwsim"
)

// management is a frame of authentication from the first radio, with a number in
// its Sequence Control field.
func management(to net.HardwareAddr, number int) hwsim.Frame {
	f := from(to, hwsim.Attempt{Rate: 4, Count: 4})
	f.Data[0] = 0xb0
	binary.LittleEndian.PutUint16(f.Data[22:], uint16(number<<4))
	return f
}

// arrival is a frame as it was delivered.
type arrival struct {
	number int
	retry  bool
	at     time.Duration
}

// listener is a medium whose radios send what the test says, and that notes what
// they hear.
type listener struct {
	*script
	start time.Time
	heard []arrival
}

func (l *listener) Deliver(to net.HardwareAddr, data []byte, _, _, _ int) error {
	if bytes.Equal(to, a2) {
		l.heard = append(l.heard, arrival{int(binary.LittleEndian.Uint16(data[22:]) >> 4), data[1]&retryBit != 0, time.Since(l.start)})
	}
	return nil
}

// arrivals has the first radio send the frames, one each ten milliseconds, and
// returns what the second heard.
func arrivals(t *testing.T, set func(*Air), frames ...hwsim.Frame) (heard []arrival, c Counters) {
	synctest.Test(t, func(t *testing.T) {
		a := line(t, WiFi(), 30, 2000)
		set(a)
		l := &listener{&script{make(chan hwsim.Frame), make(chan string, len(frames)), make(chan struct{})}, time.Now(), nil}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx, l) }()
		for _, f := range frames {
			l.frames <- f
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(3 * MaxDelay)
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if len(l.did) != len(frames) {
			t.Errorf("%d frames were reported, want each of %d once", len(l.did), len(frames))
		}
		heard, c = l.heard, a.Counters()["a b"]
	})
	return heard, c
}

func TestDisorder(t *testing.T) {
	const n = 500
	var frames []hwsim.Frame
	for i := range n {
		frames = append(frames, management(permanent(a2), i))
	}
	about := func(t *testing.T, what string, got int, share float64) {
		t.Helper()
		if want := share * n; float64(got) < want*0.75 || float64(got) > want*1.25 {
			t.Errorf("%s: got %d of %d, want about %.0f", what, got, n, want)
		}
	}
	of := func(d Disorder) func(*Air) {
		return func(a *Air) {
			if err := a.SetDisorder("a", "b", d); err != nil {
				panic(err)
			}
		}
	}
	t.Run("none", func(t *testing.T) {
		heard, c := arrivals(t, func(a *Air) { of(Disorder{Retransmitted: 1})(a); of(Disorder{})(a) }, frames...)
		if len(heard) != n || !slices.IsSortedFunc(heard, func(a, b arrival) int { return a.number - b.number }) || c.Again != 0 || c.Overtaken != 0 {
			t.Errorf("got %d frames, %+v", len(heard), c)
		}
	})
	t.Run("retransmitted", func(t *testing.T) {
		heard, c := arrivals(t, of(Disorder{Retransmitted: 0.2}), frames...)
		about(t, "copies", len(heard)-n, 0.2)
		if c.Again != len(heard)-n || c.Overtaken != 0 {
			t.Errorf("counted %+v, want %d copies", c, len(heard)-n)
		}
		for i, h := range heard {
			first := i == 0 || heard[i-1].number != h.number
			if h.retry == first || !first && h.at != heard[i-1].at {
				t.Fatalf("got %+v after %+v: want the copy at once, and it alone with the Retry bit", h, heard[max(i-1, 0)])
			}
		}
	})
	t.Run("replayed", func(t *testing.T) {
		heard, c := arrivals(t, of(Disorder{Replayed: 0.2, Delay: 50 * time.Millisecond}), frames...)
		about(t, "copies", len(heard)-n, 0.2)
		first, later := map[int]time.Duration{}, 0
		for i, h := range heard {
			at, again := first[h.number]
			if h.retry || again && h.at > at+50*time.Millisecond {
				t.Fatalf("got %+v, first at %s", h, at)
			}
			if first[h.number] = h.at; again && heard[i-1].number != h.number {
				later++
			}
		}
		if later == 0 || c.Again != len(heard)-n || c.Overtaken != 0 {
			t.Errorf("%d came after others; counted %+v, want %d copies", later, c, len(heard)-n)
		}
	})
	t.Run("late", func(t *testing.T) {
		heard, c := arrivals(t, of(Disorder{Late: 0.2, Delay: 50 * time.Millisecond}), frames...)
		if len(heard) != n {
			t.Fatalf("got %d frames, want %d", len(heard), n)
		}
		late, overtaken, newest := 0, 0, 0
		for _, h := range heard {
			d := h.at - time.Duration(h.number)*10*time.Millisecond
			if d > 55*time.Millisecond || h.retry {
				t.Errorf("got %+v", h)
			}
			if d > 5*time.Millisecond {
				late++
			}
			if newest = max(newest, h.number); h.number < newest {
				overtaken++
			}
		}
		about(t, "late", late, 0.2*0.9) // the rest within 5 ms
		if overtaken == 0 || c.Overtaken != overtaken || c.Again != 0 {
			t.Errorf("%d were overtaken; counted %+v", overtaken, c)
		}
	})
	t.Run("all at once", func(t *testing.T) {
		heard, c := arrivals(t, of(Disorder{Retransmitted: 1, Replayed: 1, Late: 1, Delay: MaxDelay}), frames[:20]...)
		if len(heard) != 60 || c.Again != 40 || c.Overtaken == 0 {
			t.Errorf("heard %d, counted %+v", len(heard), c)
		}
	})
	t.Run("not what is for all, data, or of another direction", func(t *testing.T) {
		data := management(permanent(a2), 3)
		data.Data[0] = 0x88
		heard, c := arrivals(t, func(a *Air) {
			of(Disorder{Retransmitted: 1})(a)
			if err := a.SetDisorder("b", "a", Disorder{Replayed: 1, Delay: time.Second}); err != nil {
				panic(err)
			}
		}, management(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 1), management(permanent(a3), 2), data, management(permanent(a2), 4))
		var numbers []int
		for _, h := range heard {
			numbers = append(numbers, h.number)
		}
		if !slices.Equal(numbers, []int{1, 2, 3, 4, 4}) || c.Again != 1 {
			t.Errorf("heard %v, counted %+v", numbers, c)
		}
	})
}

func TestDisorderIsBounded(t *testing.T) {
	a := line(t, WiFi(), 30, 2000)
	for want, d := range map[string]Disorder{
		"retransmitted: expected a share": {Retransmitted: 1.1},
		"replayed: expected a share":      {Replayed: -0.1, Delay: 1},
		"late: expected a share":          {Late: 2, Delay: 1},
		"delay: expected up to 1s":        {Delay: time.Minute},
		"delay: expected more than 0":     {Late: 0.1},
	} {
		if err := a.SetDisorder("a", "b", d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", d, err, want)
		}
	}
	if err := a.SetDisorder("a", "b", Disorder{Late: 0.1, Delay: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if l := a.Status().link(t, "a", "b"); l.Disorder.Late != 0.1 {
		t.Errorf("status: got %+v", l)
	}
}
