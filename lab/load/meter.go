package load

import (
	"slices"
	"sync"
	"time"
)

// Times is how long something took.
type Times struct {
	Count  int     `json:"count"`
	P50MS  float64 `json:"p50_ms"`
	P99MS  float64 `json:"p99_ms"`
	MostMS float64 `json:"most_ms"`
}

func timesOf(list []time.Duration) Times {
	if len(list) == 0 {
		return Times{}
	}
	list = slices.Sorted(slices.Values(list))
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Times{len(list), ms(list[(len(list)-1)*50/100]), ms(list[(len(list)*99+99)/100-1]), ms(list[len(list)-1])}
}

// graceful is for how long after gateway-api was killed streams may fail without that being
// an error.
const graceful = 10 * time.Second

// meter takes down what happens.
type meter struct {
	say func(text string)

	mu      sync.Mutex // guards what follows
	live    int        // samples that were acknowledged, as they were made
	late    int        // those of backlogs
	streams int        // that are open
	ack     []time.Duration
	told    []time.Duration
	urgent  []time.Duration
	errors  int
	killed  time.Time
}

// maxSaid is how many errors are said.
const maxSaid = 20

// failed counts an error, and says it unless there were many.
func (m *meter) failed(what string, err error) {
	m.mu.Lock()
	if time.Since(m.killed) < graceful {
		m.mu.Unlock()
		return
	}
	m.errors++
	say := m.errors <= maxSaid
	m.mu.Unlock()
	if say {
		m.say(what + ": " + err.Error())
	}
}

// kills notes that gateway-api is killed now, or has come back.
func (m *meter) kills() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killed = time.Now()
}

func (m *meter) opened(by int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams += by
}

func (m *meter) acked(samples int, late bool, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if late {
		m.late += samples
		return
	}
	m.live += samples
	m.ack = append(m.ack, took)
}

func (m *meter) heard(after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = append(m.told, after)
}

func (m *meter) heardUrgent(after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.urgent = append(m.urgent, after)
}

// reading is what a meter shows.
type reading struct {
	live, late, streams, errors int
	ack, told, urgent           Times
}

// read returns what came since reset.
func (m *meter) read() reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return reading{m.live, m.late, m.streams, m.errors, timesOf(m.ack), timesOf(m.told), timesOf(m.urgent)}
}

// reset has all times be of what comes from now on.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ack, m.told, m.urgent = nil, nil, nil
}
