// Package control lets commands of their own processes steer a running lab: a
// daemon owns the network and answers HTTP with JSON on a Unix socket; a file in
// the lab's folder says which process that is, so that a daemon that died is
// told from one that lives.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"halo.internal/lab/ether"
	"halo.internal/lab/machine"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// Status is everything about a lab.
type Status struct {
	Network  string    `json:"network"`
	API      string    `json:"api" doc:"the gateway's"`
	Ready    bool      `json:"ready"`
	Failure  string    `json:"failure,omitempty" doc:"why it never got ready"`
	Machines []Machine `json:"machines"`
	Switch   Switch    `json:"switch"`
}

// Machine is one of its devices.
type Machine struct {
	Name     string            `json:"name"`
	Role     model.Role        `json:"role"`
	URL      string            `json:"url"`
	Forwards []machine.Forward `json:"forwards"`
	Console  string            `json:"console"`
	Radios   []network.Radio   `json:"radios,omitempty"`
	machine.Status
}

// Switch is the Ethernet between them, if there is any.
type Switch struct {
	Links map[string]ether.LinkState `json:"links"`
	Pairs []ether.PairState          `json:"pairs,omitempty"`
}

// Steps are what happened while the lab came up.
type Steps struct {
	Items   []network.Progress `json:"items"`
	Ready   bool               `json:"ready"`
	Failure string             `json:"failure,omitempty"`
}

// Partition is the body of PUT /v1/partition.
type Partition struct {
	Groups [][]string `json:"groups"`
}

// Link is the body of PUT /v1/link: the condition of a cable, or of what is
// between two.
type Link struct {
	A         string          `json:"a"`
	B         string          `json:"b,omitempty"`
	Condition ether.Condition `json:"condition"`
}

// Action is what can be done to a machine: POST /v1/machines/{name}/{action}.
type Action string

// Actions.
const (
	Reboot Action = "reboot" // the reset button
	Stop   Action = "stop"   // the power button: the system ends in order
	Kill   Action = "kill"   // the power is cut
	Start  Action = "start"
	Pause  Action = "pause"
	Resume Action = "resume"

	// SwapCard puts another card into a machine that is off: the first time one as whoever
	// has no bundle writes it, and then each time the one that was in it before.
	SwapCard Action = "swap-card"
)

// Lab is the file that says which lab runs in a folder. It holds the claim
// code, as the card of the gateway does.
type Lab struct {
	Process   machine.Process `json:"process"`
	Socket    string          `json:"socket"`
	Network   string          `json:"network"`
	API       string          `json:"api"`
	ClaimCode string          `json:"claim_code"`
}

// String keeps the claim code out of logs.
func (l Lab) String() string { return l.Network + " at " + l.API }

// GoString is String.
func (l Lab) GoString() string { return l.String() }

const (
	labFile     = "lab.json"
	machinesDir = "machines"
)

// ErrDown is wrapped where no lab runs.
var ErrDown = errors.New("no lab is up")

// Find returns the lab that runs in a folder.
func Find(dir string) (Lab, error) {
	b, err := os.ReadFile(filepath.Join(dir, labFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Lab{}, fmt.Errorf("%w in %s", ErrDown, dir)
	}
	if err != nil {
		return Lab{}, err
	}
	var l Lab
	if err := json.Unmarshal(b, &l); err != nil {
		return Lab{}, fmt.Errorf("%s: expected what halo-lab wrote: %w", filepath.Join(dir, labFile), err)
	}
	if !l.Process.Alive() {
		return l, fmt.Errorf("%w in %s: process %d is gone", ErrDown, dir, l.Process.PID)
	}
	return l, nil
}

// Clean removes what a lab that is gone left in the folder, running machines
// among it. It returns an error while a lab is up there.
func Clean(dir string) error {
	old, err := Find(dir)
	if err == nil {
		return fmt.Errorf("a lab is up in %s already: %s", dir, old)
	}
	if !errors.Is(err, ErrDown) {
		return err
	}
	folders, err := filepath.Glob(filepath.Join(dir, machinesDir, "*"))
	if err != nil {
		return err
	}
	for _, f := range folders {
		if _, err := machine.KillOrphan(f); err != nil {
			return err
		}
	}
	if old.Socket != "" {
		// Only ever the folder of a socket that we made.
		if err := errors.Join(remove(old.Socket), remove(filepath.Dir(old.Socket))); err != nil {
			return err
		}
	}
	return remove(filepath.Join(dir, labFile))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (l Lab) save(dir string) error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, labFile), append(b, '\n'), 0o600)
}

// Consoles returns the folder of a machine's consoles, whether the lab is up or
// not.
func Consoles(dir, name string) string { return filepath.Join(dir, machinesDir, name) }
