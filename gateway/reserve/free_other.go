//go:build !linux

package reserve

// free says that there is room: elsewhere a gateway runs on a laptop, whose
// owner sees a full disk without our help.
func free(string) (int64, error) { return high, nil }
