package reserve

import "golang.org/x/sys/unix"

// Free returns how many octets of dir's file system root may still use.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bfree) * st.Bsize, nil
}
