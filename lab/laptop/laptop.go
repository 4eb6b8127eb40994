// Package laptop holds the test of a person's laptop in the overlay: a machine with the
// kernel's WireGuard and Debian's wireguard-tools, used as haloctl and the documents
// say, against a whole gateway (halo-mesh and gateway-api) and a node.
package laptop
