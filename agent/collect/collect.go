// Package collect reads what a board says of itself: processor, memory, load,
// uptime, temperatures, storage, network interfaces and HALO's own processes,
// from /proc and /sys. A collector is one file with one constructor, listed in
// All. What a board does not have is left out; what fails is reported beside
// what was read, and each is read apart (Apart), so that a missing sensor, or a
// bus that hangs, never silences the others.
package collect

import (
	"context"
	"path/filepath"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
	"github.com/prometheus/procfs/sysfs"

	"halo.internal/model/wire"
)

// Reading is one value of one metric.
type Reading struct {
	Metric wire.Metric
	Value  wire.Value
	Urgent bool // beyond a limit that a person wants to hear of at once
}

// Collector reads one kind of thing.
type Collector interface {
	Name() string
	// Collect returns what it read, also beside an error.
	Collect(context.Context) ([]Reading, error)
}

// Set is a list of collectors.
type Set []Collector

// All returns every collector of a system whose file systems /proc and /sys
// are below root, and whose data partition is perm.
func All(root, perm string) (Set, error) {
	proc, err := procfs.NewFS(filepath.Join(root, "proc"))
	if err != nil {
		return nil, err
	}
	sys, err := sysfs.NewFS(filepath.Join(root, "sys"))
	if err != nil {
		return nil, err
	}
	disks, err := blockdevice.NewFS(filepath.Join(root, "proc"), filepath.Join(root, "sys"))
	if err != nil {
		return nil, err
	}
	return Set{
		newCPU(proc),
		newMemory(proc),
		newLoad(proc),
		newUptime(root),
		newTemperature(sys),
		newUndervoltage(root),
		newStorage(disks, map[string]string{"perm": perm}, statfs),
		newInterfaces(proc),
		newProcesses(proc),
	}, nil
}

func integer(name, unit string, scale int8, v int64) Reading {
	return Reading{Metric: wire.NewMetric(name, unit, scale), Value: wire.Int(v)}
}

// permille returns part/whole as a percentage with one decimal place.
func permille(part, whole float64) int64 {
	if whole <= 0 {
		return 0
	}
	return int64(part/whole*1000 + 0.5)
}

// Label makes a kernel name such as eth0.100 fit into a metric's name.
func Label(name string) string {
	b := []byte(name[:min(len(name), 32)])
	for i, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-':
		default:
			b[i] = '_'
		}
	}
	if len(b) == 0 {
		return "_"
	}
	return string(b)
}
