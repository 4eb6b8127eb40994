//go:build lab

package benchmesh_test

import (
	"context"
	"crypto/ecdh"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/mesh/peering"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// BenchmarkResident measures memory and processor time of halo-mesh, of a gateway and of
// a node, in a network of 250 members: as many originators at the gateway, and a radio
// with as many links as it takes. Eleven members are there; the others are OGMs that one
// of them sends in their names, as if they were behind it. It begins when the recoveries
// of both are over (of as many as "hurried" says they were not), since the telemetry that a stand-in of halo-agent
// tells of is acknowledged. Both are asked as on boards, every two seconds: by halo-agent,
// and the gateway by gateway-api too. Memory is the median of HALO_BENCH_IDLE, and the
// most. The processor is an emulated one; what it takes for a handshake's multiplication
// is beside it, to compare it with a board's.
func BenchmarkResident(b *testing.B) {
	const others, links, members = 11, peering.DefaultMaxPeers - 1, 250 // a link is kept free
	w := newWorld(b)
	n := w.network(bundle.Mesh{Routing: "BATMAN_IV", Channel: 6}, false)
	all := n.build(others + 1)
	gateway := all[0]
	n.admit(gateway, all[1:], members)
	for _, d := range all {
		w.acknowledge(d)
	}
	// One after the other: how a dozen begin at once is not what is measured, and they
	// would have one emulated machine's processors for all.
	w.plug(gateway.space, w.radio(""))
	for i, d := range all[1:] {
		w.plug(d.space, w.radio(""))
		w.poll(time.Second, d.name+" reaches the gateway", func() error { return whole([]*device{d}, i+1) })
	}
	w.poll(2*time.Second, "all reach each other and the gateway", func() error { return whole(all, others) })
	var peer *device
	w.poll(2*time.Second, "the gateway has links enough", func() error {
		s, err := gateway.status()
		if err != nil {
			return err
		}
		if len(s.Radios) != 1 || s.Radios[0].Linked() < links {
			return fmt.Errorf("radios %+v", s.Radios)
		}
		for _, d := range all[1:] {
			of, err := d.status()
			if err != nil {
				return err
			}
			for _, r := range of.Radios {
				if r.MAC == s.Radios[0].Peers[0].MAC && s.Radios[0].Peers[0].Linked {
					peer = d
				}
			}
		}
		if peer == nil {
			return errors.New("none of the members is the gateway's first peer")
		}
		return nil
	})
	w.ok(w.crowd(peer.space, "mesh0", members-others))
	w.poll(2*time.Second, "the gateway knows all originators", func() error {
		s, err := gateway.status()
		if err == nil && s.Originators < members {
			err = fmt.Errorf("%d of %d", s.Originators, members)
		}
		return err
	})
	hurried := w.calm(5*time.Minute, gateway, peer)
	w.ask(gateway, 2)
	w.ask(peer, 1)
	length := duration(b, "HALO_BENCH_IDLE", 2*time.Minute)
	g, p := took(b, gateway), took(b, peer)
	for began := time.Now(); time.Since(began) < length; time.Sleep(5 * time.Second) { // the time is what is measured
		g.look()
		p.look()
	}
	s, err := gateway.status()
	w.ok(err)
	b.ReportMetric(0, "ns/op")
	g.report("")
	p.report("node-")
	b.ReportMetric(float64(s.Radios[0].Linked()), "links")
	b.ReportMetric(float64(s.Originators), "originators")
	b.ReportMetric(float64(hurried), "hurried")
	b.ReportMetric(multiplication().Seconds()*1e3, "curve-ms")
}

// calm waits until the recoveries of devices are over, while which they look at
// themselves four times as often, but not for long: on a host that is busy otherwise a
// dozen on two emulated processors go on to lose links. It returns how many still are in
// such a hurry.
func (w *world) calm(limit time.Duration, devices ...*device) (hurried int) {
	w.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Second) {
		hurried = 0
		for _, d := range devices {
			list, err := d.mesh.Timeline(w.t.Context())
			if err != nil || slices.ContainsFunc(list, func(r model.Recovery) bool { return r.State == model.RecoveryLasts }) {
				hurried++
			}
		}
		if hurried == 0 || time.Now().After(deadline) {
			return hurried
		}
	}
}

// acknowledge stands for halo-agent on a device, whose readings the gateway takes once a
// minute.
func (w *world) acknowledge(d *device) {
	w.t.Helper()
	graph := health.New("halo-agent")
	graph.Declare("gateway")
	graph.Set("gateway", health.OK, "")
	began := time.Now()
	mux := http.NewServeMux()
	mux.Handle("GET "+local.RouteHealth, graph)
	mux.HandleFunc("GET "+local.RouteStatus, func(a http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(a).Encode(model.AgentStatus{Spool: model.SpoolStatus{Ready: true, Acked: uint64(time.Since(began) / time.Minute)}})
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- local.Serve(ctx, filepath.Join(d.root, paths.AgentSocket), mux) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}

// ask has so many processes ask a device's halo-mesh how it is, as those of a board do,
// until the test ends. The first is halo-agent, which asks for all once a minute.
func (w *world) ask(d *device, processes int) {
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	for process := range processes {
		asking.Go(func() {
			t := time.NewTicker(local.FollowEvery)
			defer t.Stop()
			for n := 0; ; n++ {
				look := d.mesh.Brief
				if process == 0 && n%int(time.Minute/local.FollowEvery) == 0 {
					look = d.mesh.Status
				}
				_, err := look(ctx)
				if _, unwell := d.mesh.Health(ctx); err == nil {
					err = unwell
				}
				if err != nil && ctx.Err() == nil {
					fmt.Printf("%s: %v\n", d.name, err)
				}
				select {
				case <-ctx.Done():
					return
				case <-t.C:
				}
			}
		})
	}
	w.t.Cleanup(func() { cancel(); asking.Wait() })
}

// taken is what a device's halo-mesh takes.
type taken struct {
	b     *testing.B
	pid   int
	rss   []float64
	used  time.Duration
	began time.Time
}

func took(b *testing.B, d *device) *taken {
	pid := d.cmd.Process.Pid
	return &taken{b: b, pid: pid, used: cpu(b, pid), began: time.Now()}
}

func (t *taken) look() { t.rss = append(t.rss, memory(t.b, t.pid, "VmRSS:")) }

func (t *taken) report(who string) {
	used, passed := cpu(t.b, t.pid)-t.used, time.Since(t.began)
	t.b.ReportMetric(100*used.Seconds()/passed.Seconds(), who+"cpu-%")
	t.b.ReportMetric(median(t.rss), who+"MiB")
	t.b.ReportMetric(slices.Max(t.rss), who+"MiB-most")
	t.b.ReportMetric(memory(t.b, t.pid, "VmHWM:"), who+"MiB-ever")
	t.b.ReportMetric(memory(t.b, t.pid, "RssAnon:"), who+"MiB-anon")
	t.b.ReportMetric(memory(t.b, t.pid, "RssFile:"), who+"MiB-file")
}

// multiplication returns what this machine's processor takes for one on X25519: the
// median of some.
func multiplication() time.Duration {
	key, other := identity.New(), identity.New().WireGuardPublic()
	private, err := ecdh.X25519().NewPrivateKey(slices.Clone(key.Seed()))
	if err != nil {
		panic(err) // 32 octets are one
	}
	public, err := ecdh.X25519().NewPublicKey(other[:])
	if err != nil {
		panic(err)
	}
	var took []float64
	for range 51 {
		began := time.Now()
		if _, err := private.ECDH(public); err != nil {
			panic(err)
		}
		took = append(took, time.Since(began).Seconds())
	}
	return time.Duration(median(took) * float64(time.Second))
}

// crowd has an interface that carries the mesh send OGMs of so many more nodes
// every two seconds, until the test ends. They are not to be passed on.
func (w *world) crowd(s *space, iface string, nodes int) error {
	var fd int
	var own net.HardwareAddr
	err := s.within(func() (err error) {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		own = i.HardwareAddr
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index})
	})
	if err != nil {
		return err
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(2 * time.Second)
		defer t.Stop()
		for seq := uint32(1); ; seq++ {
			for _, f := range ogms(own, nodes, seq) {
				if _, err := unix.Write(fd, f); err != nil {
					return // the interface is gone
				}
			}
			select {
			case <-stop:
				return
			case <-t.C:
			}
		}
	}()
	w.t.Cleanup(func() { close(stop); <-ended; _ = unix.Close(fd) })
	return nil
}

// ogms returns frames with the messages of BATMAN_IV (struct batadv_ogm_packet) of
// nodes that are neighbours of own.
func ogms(own net.HardwareAddr, nodes int, seq uint32) (frames [][]byte) {
	const (
		batman, version, perFrame = 0x4305, 15, 20
		ttl, quality              = 1, 255 // of one hop: those that hear it do not pass it on
	)
	var f []byte
	for i := range nodes {
		if i%perFrame == 0 {
			if f != nil {
				frames = append(frames, f)
			}
			f = append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, own...)
			f = binary.BigEndian.AppendUint16(f, batman)
		}
		node := []byte{2, 0xcc, 0, 0, byte(i >> 8), byte(i)}
		f = append(f, 0, version, ttl, 0)
		f = binary.BigEndian.AppendUint32(f, seq)
		f = append(append(f, node...), node...)
		f = append(f, 0, quality, 0, 0)
	}
	return append(frames, f)
}

// cpu returns utime and stime of a process (proc_pid_stat(5)), in ticks of 10 ms.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	const utime, stime, tick = 11, 12, 10 * time.Millisecond
	var sum time.Duration
	for _, i := range []int{utime, stime} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}

// memory returns a figure of proc_pid_status(5) in MiB.
func memory(b *testing.B, pid int, name string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatalf("no %s", name)
	return 0
}
