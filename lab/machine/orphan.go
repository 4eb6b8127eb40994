package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"halo.internal/model/atomicfile"
)

// pidName is the file that names a running child, in case that we die and the
// kernel does not end it with us.
const pidName = "qemu.pid"

// Process names a process beyond doubt: numbers are used again, a number with a
// start time is not.
type Process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // in the host's own form
}

// Lookup names the process of that number.
func Lookup(pid int) (Process, error) {
	started, err := startTime(pid)
	return Process{pid, started}, err
}

// Alive tells whether the process still runs.
func (p Process) Alive() bool {
	now, err := Lookup(p.PID)
	return err == nil && now == p
}

func (m *Machine) pidFile() string { return filepath.Join(m.cfg.Dir, pidName) }

func writePID(path string, pid int) error {
	p, err := Lookup(pid)
	if err != nil {
		return fmt.Errorf("start time of process %d: %w", pid, err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, b, 0o644)
}

// KillOrphan ends the QEMU that a lab which is gone left behind in a machine's
// folder, and tells whether there was one.
func KillOrphan(dir string) (bool, error) {
	path := filepath.Join(dir, pidName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var p Process
	if err := json.Unmarshal(b, &p); err != nil || p.PID <= 1 {
		return false, fmt.Errorf("%s: expected a process, got %.40q", path, b)
	}
	alive := p.Alive()
	if alive {
		if err := syscall.Kill(-p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return true, err
		}
	}
	return alive, os.Remove(path)
}
