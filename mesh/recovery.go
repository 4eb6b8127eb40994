package mesh

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"halo.internal/health"
	"halo.internal/mesh/timeline"
	"halo.internal/mesh/wireless"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// While a recovery lasts, and not for too long, the graph is looked at more often (see
// lookIn): it is how exact its timeline is.
const (
	hurryEvery = 500 * time.Millisecond
	lookPause  = 100 * time.Millisecond // after something has happened: what is alike comes together
)

// recoveries keeps the timeline of each.
type recoveries struct {
	look chan struct{} // awake when something has happened that may be a stage

	mu     sync.Mutex // guards what follows
	record *timeline.Recorder
	store  *timeline.Store
	told   time.Duration // when an event last said that one is over
}

// uptime is the time since the kernel started, which nobody sets.
func uptime() time.Duration { return time.Duration(sinceBoot()) * time.Millisecond }

// startTimeline goes on with what is kept.
func (m *core) startTimeline() {
	card, err := m.store.Get(paths.Timeline, "", func(b []byte) error {
		_, err := timeline.Parse(b)
		return err
	})
	if err != nil {
		card = nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Log.Warn("what was kept of recoveries is not used", "err", err)
	}
	store := timeline.NewStore(m.path(paths.RunTimeline), func(b []byte) error {
		_, err := m.store.Put(paths.Timeline, "", b)
		return err
	})
	kept, restarted, err := store.Load(card)
	if err != nil {
		m.Log.Warn("what was kept of recoveries is not used", "err", err)
	}
	m.past.mu.Lock()
	defer m.past.mu.Unlock()
	m.past.store = store
	m.past.record = timeline.New(m.id.BootCounter, kept, restarted, uptime(), m.clock.Now)
}

// links are the checks that make the chain, and which of them are stages. A
// gateway's peers and routes are well without any; their stages are what the chain
// has counted. The others are of the device, not of its way to the gateway.
var links = map[string]model.RecoveryStage{
	checkBundle: "", checkBat: model.StageAddress, checkDriver: model.StageDriver, checkInterface: model.StageInterface, checkMesh: model.StageMesh,
	checkPeers: "", checkRoutes: "", checkGateway: model.StageGateway, checkJoin: model.StageJoin, checkOverlay: model.StageOverlay, checkTelemetry: model.StageTelemetry,
}

// facts are what the graph says of the chain. What works with less has been
// reached, and is not whole.
func (m *core) facts() timeline.Facts {
	_, _, _, acked := m.agent.last()
	f := timeline.Facts{Whole: true, Reached: map[model.RecoveryStage]bool{
		model.StagePeer: m.chain.links > 0, model.StageOriginator: m.chain.originators > 0,
	}, Acked: acked}
	less := false // the first that is not whole works with less
	for _, c := range m.graph.Report().Checks {
		s, ok := links[c.Name]
		if !ok {
			continue
		}
		if s != "" {
			f.Reached[s] = c.State == health.OK || c.State == health.Degraded && c.Name != checkTelemetry
		}
		if c.State != health.OK && (f.Whole || less && c.State != health.Degraded) {
			f.Whole, f.Broken, f.Detail, less = false, c.Name, c.Detail, c.State == health.Degraded
		}
	}
	return f
}

// record takes what the graph says now into the timeline; last: the process ends.
func (m *core) record(last bool) {
	f, now := m.facts(), uptime()
	m.past.mu.Lock()
	defer m.past.mu.Unlock()
	ended := m.past.record.Look(now, f)
	list := m.past.record.List(now)
	if err := m.past.store.Keep(now, list, ended, last); err != nil {
		m.Log.Warn("timeline is not kept", "err", err)
	}
	if ended {
		m.tellRecovery(now, list[len(list)-1])
	}
}

// EventRecovered says that the chain from the radio to the gateway is whole again;
// fields cause, check (that broke), total_ms, and each stage with its milliseconds
// since the beginning.
const EventRecovered = "mesh.recovered"

// tellEvery is how far two of these events are apart at the least, that a link which
// comes and goes does not push all others out.
const tellEvery = time.Minute

// tellRecovery lets the gateway know how this one went. m.past.mu is held.
func (m *core) tellRecovery(now time.Duration, c model.Recovery) {
	if c.Cause == model.CauseBroken && m.past.told > 0 && now-m.past.told < tellEvery {
		return
	}
	m.past.told = now
	since := string(c.Cause)
	fields := []string{"cause", string(c.Cause), "total_ms", strconv.FormatInt(c.TotalMS, 10)}
	if c.Cause == model.CauseBroken {
		since = c.Check + " broke"
		fields = append(fields, "check", c.Check)
	}
	for _, s := range c.Stages {
		fields = append(fields, s.Name, strconv.FormatInt(s.MS, 10))
	}
	m.events.Add(EventRecovered, model.Info, fmt.Sprintf("whole again, %.1f s after: %s", float64(c.TotalMS)/1e3, since), fields...)
}

// recovers tells whether a recovery lasts, or the first look at one is to come.
func (m *core) recovers() bool {
	m.past.mu.Lock()
	defer m.past.mu.Unlock()
	if m.past.record == nil {
		return true
	}
	_, lasts := m.past.record.Lasting(uptime())
	return lasts
}

// watchIn is when to look again.
func (m *core) watchIn() time.Duration {
	m.past.mu.Lock()
	defer m.past.mu.Unlock()
	if m.past.record == nil {
		return watchEvery
	}
	if lasted, lasts := m.past.record.Lasting(uptime()); lasts {
		return lookIn(lasted)
	}
	return watchEvery
}

// lookIn is when to look again in a recovery that has lasted so long: soon, at first,
// and then as often as tells a stage's time to a sixtieth. A look asks the kernel for
// all its tables, and a dozen of devices in one machine have no time for much else.
func lookIn(lasted time.Duration) time.Duration {
	return min(max(hurryEvery, lasted/60), watchEvery)
}

// steps are the events that say what was done to bring the device back.
var steps = map[string]string{
	wireless.EventLonely: "search", wireless.EventElsewhere: "scan", wireless.EventRestarted: "restart",
	wireless.EventDriverRecovered: "reload", wireless.EventDriverFailed: "reload", wireless.EventCrashed: "crash",
}

// noteStep takes an event of the underlay into the timeline.
func (m *core) noteStep(e model.Event) {
	if name, ok := steps[e.Kind]; ok {
		m.past.mu.Lock()
		if m.past.record != nil {
			m.past.record.Step(uptime(), name, e.Message)
		}
		m.past.mu.Unlock()
	}
	wake(m.past.look)
}

// Timeline returns the recoveries that are kept, oldest first.
func (m *core) Timeline() []model.Recovery {
	m.past.mu.Lock()
	defer m.past.mu.Unlock()
	if m.past.record == nil {
		return []model.Recovery{} // a device without a network
	}
	return m.past.record.List(uptime())
}
