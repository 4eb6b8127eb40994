//go:build !linux

package reserve

// Free says that there is room: elsewhere a gateway runs on a laptop, whose
// owner sees a full disk without our help.
func Free(string) (int64, error) { return high, nil }
