// Package boards carries the board files with the programs: those that run on a device
// know it by them, and the gateway knows its nodes' boards.
package boards

import "embed"

// Files are the board files, and below headers/ the headers that they name.
//
//go:embed *.toml headers/*.toml
var Files embed.FS
