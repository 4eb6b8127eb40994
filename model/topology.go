package model

// MeshTopology is the mesh as one device's routing sees it.
type MeshTopology struct {
	Node        string            `json:"node" doc:"canonical ID of the device that was asked"`
	Gateway     string            `json:"gateway" doc:"canonical ID of the network's gateway"`
	Routing     string            `json:"routing,omitempty" enum:"BATMAN_IV,BATMAN_V" doc:"algorithm; absent while the mesh interface is not there"`
	Originators []MeshOriginator  `json:"originators" doc:"the other nodes of the mesh, as far as there is a way to them"`
	Neighbours  []MeshPeer        `json:"neighbours" doc:"those that are reached directly, once for each of their interfaces"`
	Names       map[string]string `json:"names" doc:"names of nodes by canonical ID, as far as the device knows them"`
}

// MeshOriginator is a node of the mesh as routing names it, by the address of its
// first interface.
type MeshOriginator struct {
	MAC         string  `json:"mac"`
	Node        string  `json:"node,omitempty" doc:"canonical ID of the member whose mesh interface is said to be behind this address; nothing proves it"`
	NextHop     string  `json:"next_hop,omitempty" doc:"address of the neighbour by which it is reached; absent: no way is in use"`
	NextHopNode string  `json:"next_hop_node,omitempty" doc:"canonical ID, where it is known"`
	Iface       string  `json:"iface,omitempty" doc:"interface towards the next hop"`
	LastSeenMS  int64   `json:"last_seen_ms" doc:"since it was heard by the way in use"`
	TQ          uint8   `json:"tq,omitempty" doc:"BATMAN_IV transmit quality of the whole way, 0 to 255"`
	Throughput  float64 `json:"throughput_mbps,omitempty" doc:"BATMAN_V, of the whole way"`
	Others      int     `json:"other_ways" doc:"ways that are known besides the one in use"`
}
