package model

// PermState tells what became of the data partition.
type PermState string

// States of /perm.
const (
	PermOK       PermState = "ok"
	PermRemade   PermState = "remade"   // could not be mounted; made anew in this start, what was readable is back
	PermDamaged  PermState = "damaged"  // mounted, but the file system knows of errors
	PermFull     PermState = "full"     // no room is left
	PermReadOnly PermState = "readonly" // the kernel turned it read-only after an error
	PermVolatile PermState = "volatile" // lives in RAM: nothing is kept over a restart
)

// BootReport is what halo-init and its guard saw and decided in this start.
// The guard keeps the file (paths.BootReport) true while the machine runs.
type BootReport struct {
	Slot       string      `json:"slot" enum:"a,b,flat"`
	Disk       string      `json:"disk,omitempty" doc:"name of the disk that runs"`
	Version    string      `json:"version,omitempty" doc:"release in the slot"`
	Board      string      `json:"board,omitempty" doc:"board whose image is in the slot"`
	Kernel     string      `json:"kernel"`
	Committed  bool        `json:"committed" doc:"the slot was healthy, in this start or before"`
	Healthy    bool        `json:"healthy" doc:"halo-mesh called this start healthy"`
	Tries      uint8       `json:"tries" doc:"starts left for a slot that is not committed"`
	Boots      uint32      `json:"boots" doc:"starts since the last healthy one, with this one"`
	BadSlots   []string    `json:"bad_slots,omitempty"`
	Reset      string      `json:"reset,omitempty" doc:"who has asked for the factory reset with which this start began"`
	SlotReason string      `json:"slot_reason,omitempty" doc:"why this slot runs and not the one before"`
	Verity     bool        `json:"verity" doc:"each block of the root is checked as it is read"`
	Perm       PermReport  `json:"perm"`
	Watchdog   string      `json:"watchdog,omitempty" doc:"what resets the machine when the guard stops; empty: nothing"`
	Crash      *Crash      `json:"crash,omitempty" doc:"how the kernel fell before this start"`
	Problems   []string    `json:"problems,omitempty" doc:"what did not go as it should"`
	Phases     []BootPhase `json:"phases,omitempty"`
}

// PermReport is the part of the data partition.
type PermReport struct {
	State  PermState `json:"state" enum:"ok,remade,damaged,full,readonly,volatile"`
	Before PermState `json:"before,omitempty" doc:"while it is full: what it is again once there is room"`
	Detail string    `json:"detail,omitempty"`
	Size   int64     `json:"size" doc:"octets"`
	Free   int64     `json:"free" doc:"octets"`
	Grown  bool      `json:"grown,omitempty" doc:"was enlarged to the card in this start"`
	Lost   []string  `json:"lost,omitempty" doc:"files that could not be saved"`
}

// Crash holds the last messages of a kernel that fell.
type Crash struct {
	Cause string `json:"cause" doc:"first line that speaks of the fall"`
	File  string `json:"file,omitempty" doc:"where the messages are kept"`
}

// BootPhase tells when a phase of the start was over.
type BootPhase struct {
	Name string `json:"name"`
	MS   int64  `json:"ms" doc:"milliseconds since the kernel started"`
}
