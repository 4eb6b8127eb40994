package model

import "time"

// RecoveryStage names a link of the chain from the radio to the gateway.
type RecoveryStage string

// Stages of a recovery, in the order of the chain. In time they may come
// otherwise: the address, for one, follows from the node's key.
const (
	StageAddress    RecoveryStage = "address"    // the mesh interface has its underlay address
	StageDriver     RecoveryStage = "driver"     // there is a radio, or a port
	StageInterface  RecoveryStage = "interface"  // with an interface
	StageMesh       RecoveryStage = "mesh"       // that has joined the mesh
	StagePeer       RecoveryStage = "peer"       // a first link stands
	StageOriginator RecoveryStage = "originator" // routing knows a way to somebody
	StageGateway    RecoveryStage = "gateway"    // the gateway is heard
	StageJoin       RecoveryStage = "join"       // this device is a member of the network
	StageOverlay    RecoveryStage = "overlay"    // a handshake with the gateway
	StageTelemetry  RecoveryStage = "telemetry"  // the gateway has acknowledged readings since
)

// RecoveryStages are all stages, in the order of the chain.
var RecoveryStages = []RecoveryStage{
	StageAddress, StageDriver, StageInterface, StageMesh, StagePeer, StageOriginator, StageGateway, StageJoin, StageOverlay, StageTelemetry,
}

// RecoveryCause is what a recovery is from.
type RecoveryCause string

// Causes.
const (
	CausePowerOn RecoveryCause = "power-on"
	CauseRestart RecoveryCause = "restart" // of halo-mesh
	CauseBroken  RecoveryCause = "broken"  // a link of the chain, after all of it was whole
)

// RecoveryState tells whether a recovery is over.
type RecoveryState string

// States of a recovery.
const (
	RecoveryLasts RecoveryState = "lasts"
	RecoveryOver  RecoveryState = "over" // the chain was whole again
	RecoveryCut   RecoveryState = "cut"  // the machine went off before
)

// RecoveryMark is something at a time of a recovery.
type RecoveryMark struct {
	MS     int64  `json:"ms" doc:"since the beginning of the recovery, by a clock that is never set"`
	Name   string `json:"name" doc:"of a stage, or of a rung of the ladder: search, scan, restart, reload"`
	Detail string `json:"detail,omitempty"`
}

// Recovery is the timeline of one: from the start of the machine, or from where
// the chain from the radio to the gateway broke, until all of it was whole again.
type Recovery struct {
	Boot    uint64         `json:"boot" doc:"boot counter of the device"`
	Cause   RecoveryCause  `json:"cause" enum:"power-on,restart,broken"`
	Check   string         `json:"check,omitempty" doc:"first broken link, where it broke"`
	Detail  string         `json:"detail,omitempty" doc:"what was wrong with it"`
	State   RecoveryState  `json:"state" enum:"lasts,over,cut"`
	BeganMS int64          `json:"began_ms" doc:"since the start of the kernel; 0 for a power-on"`
	Began   time.Time      `json:"began" doc:"by the device's clock as it was when this was last written"`
	Clock   ClockQuality   `json:"clock" doc:"of that time"`
	TotalMS int64          `json:"total_ms,omitempty" doc:"until the chain was whole; absent before"`
	Missing string         `json:"missing,omitempty" doc:"first broken link at last; absent when it is over"`
	Stages  []RecoveryMark `json:"stages" doc:"links that were not there when it began, each when it was there to stay"`
	Steps   []RecoveryMark `json:"steps,omitempty" doc:"what was done about it"`
}
