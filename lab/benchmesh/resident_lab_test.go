//go:build lab

package benchmesh_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/mesh/peering"
	"halo.internal/model/bundle"
)

// BenchmarkResident measures memory and processor time of a gateway's halo-mesh in
// a network of 250 members: as many originators, and a radio with as many links as
// it takes. Eleven members are there; the others are OGMs that one of them sends in
// their names, as if they were behind it. Memory is the median, and the most, of
// HALO_BENCH_IDLE.
func BenchmarkResident(b *testing.B) {
	const others, links, members = 11, peering.DefaultMaxPeers - 1, 250 // a link is kept free
	w := newWorld(b)
	n := w.network(bundle.Mesh{Routing: "BATMAN_IV", Channel: 6}, false)
	all := n.build(others + 1)
	gateway := all[0]
	n.admit(gateway, all[1:], members)
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
	w.rest(all)
	pid := gateway.cmd.Process.Pid
	var rss []float64
	length := duration(b, "HALO_BENCH_IDLE", 2*time.Minute)
	before, began := cpu(b, pid), time.Now()
	for time.Since(began) < length { // the time is what is measured
		rss = append(rss, memory(b, pid, "VmRSS:"))
		time.Sleep(5 * time.Second)
	}
	used := cpu(b, pid) - before
	passed := time.Since(began)
	s, err := gateway.status()
	w.ok(err)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rss), "MiB")
	b.ReportMetric(rss[len(rss)-1], "MiB-most")
	b.ReportMetric(memory(b, pid, "VmHWM:"), "MiB-ever")
	b.ReportMetric(memory(b, pid, "RssAnon:"), "MiB-anon")
	b.ReportMetric(memory(b, pid, "RssFile:"), "MiB-file")
	b.ReportMetric(100*used.Seconds()/passed.Seconds(), "cpu-%")
	b.ReportMetric(float64(s.Radios[0].Linked()), "links")
	b.ReportMetric(float64(s.Originators), "originators")
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
