package agent

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// nodeStatus returns what makes the node's heartbeat. What can't change while
// the machine runs is read once.
func (a *agent) nodeStatus() func() model.NodeStatus {
	build := version.Get()
	fixed := model.NodeStatus{
		Name: a.id.Key.ID(), Role: a.Role, Version: build.Version, Commit: build.Commit,
		Board: a.hardware.known().Tree.Model, Serial: property("/proc/device-tree/serial-number"), Kernel: kernel(),
	}
	return func() model.NodeStatus {
		st := fixed
		ref := a.hardware.known().Ref
		st.BoardFile = &ref
		st.Inventory, _ = a.inventory.of(a.sensors)
		st.Slot = slot(a.path(paths.BootReport)) // the guard may write it after this process has started
		mesh, meshHealth := a.seen.last()
		if mesh.Name != "" {
			st.Name = mesh.Name
		}
		st.Volatile, st.Interfaces = mesh.Volatile, mesh.Interfaces
		if len(st.Interfaces) > maxInterfaces {
			st.Interfaces = st.Interfaces[:maxInterfaces]
		}
		st.Clients, st.Cameras = a.seen.clientsNow(), a.cameras.Briefs()
		st.Position = a.where.position()
		st.UptimeS = uptime()
		// What is broken in the mesh explains what is broken here.
		r := a.graph.Report()
		if meshHealth.Name != "" && meshHealth.State != health.OK && meshHealth.Missing != meshTelemetry {
			r = meshHealth
		}
		st.State, st.Missing = string(r.State), r.Missing
		return st
	}
}

// meshTelemetry is what halo-mesh calls this process's own stream, which is known
// better here.
const meshTelemetry = "telemetry"

const maxInterfaces = 64 // in a heartbeat

func property(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "" // no device tree: not one of HALO's boards
	}
	s := strings.TrimRight(string(b), "\x00\n")
	return s[:min(len(s), 128)]
}

// life names a start of the machine to the gateway: nothing that the kernel's own name
// of it, which others may rely on as a secret, follows from.
func life(bootID string) []byte {
	sum := sha256.Sum256([]byte("halo life 1\x00" + bootID))
	return sum[:8]
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func slot(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	var r model.BootReport
	if json.Unmarshal(b, &r) != nil {
		return ""
	}
	return r.Slot
}

func uptime() int64 { return int64(sinceBoot() / 1000) }

// sinceBoot returns the milliseconds since the start of the machine.
func sinceBoot() uint64 { return uint64(bootTime() / time.Millisecond) }

// bootTime is the same, exactly.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
