package model

// Healing is how far halo-mesh went to bring a radio back, by the ladder of
// mesh/heal. Counts are since the start of halo-mesh.
type Healing struct {
	Rung     string `json:"rung,omitempty" enum:"search,scan,restart,rebind,reload" doc:"highest that was tried since the radio last worked; absent: it works"`
	Evidence string `json:"evidence,omitempty" doc:"kind of what says that it does not work, e.g. unreported; absent: nothing does"`
	Reason   string `json:"reason,omitempty" doc:"the same in words"`
	Searches uint64 `json:"searches,omitempty" doc:"for peers, on its channel"`
	Scans    uint64 `json:"scans,omitempty" doc:"of other channels, while the device had no peer at all"`
	Restarts uint64 `json:"restarts,omitempty" doc:"it left the mesh and joined it anew"`
	Rebinds  uint64 `json:"rebinds,omitempty" doc:"its device was taken from its driver and given back, since others of the driver work"`
	Reloads  uint64 `json:"reloads,omitempty" doc:"of its driver"`
}
