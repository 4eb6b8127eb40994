// Package benchagent measures what halo-agent costs a board: its memory and its share of
// a processor with twenty sensors that are read each second and a GPS receiver that tells
// its place ten times a second. The chips and the receiver are played: the agent is the
// whole of it, over a real gateway-api, with a process of its own.
package benchagent
