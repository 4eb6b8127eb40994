package telemetry

import "golang.org/x/sys/unix"

// space returns the size of the file system that holds the path and what of it
// is free; 0 and 0 where that is not known, as of RAM.
func space(path string) (size, free int64) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0
	}
	return int64(s.Blocks) * s.Bsize, int64(s.Bavail) * s.Bsize
}
