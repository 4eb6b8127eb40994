//go:build !linux

package telemetry

// unreadable is known of Linux; elsewhere a file that cannot be opened stays where it is.
func unreadable(string) bool { return false }
