// Package benchmesh measures what self-healing promises, with whole halo-meshes in
// the test machine: how long a radio takes to the first encrypted reply, beside
// Debian's wpa_supplicant, batctl, udhcpc, dnsmasq and wg; what the overlay costs
// beside plain WireGuard; what an idle mesh takes of a HaLow channel, and how long
// a way around a lost node takes; and what halo-mesh takes of memory and processor.
// All of it is in benchmarks, which print tables besides their metrics: `make
// bench-mesh`.
package benchmesh
