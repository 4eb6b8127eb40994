package nl80211

import "flag"

// Update has tests write what they would otherwise compare with. In the test
// machine that is what the kernel says.
var Update = flag.Bool("update", false, "write testdata anew")

// Hold keeps the reader of events from going on until release is called.
func (l *Listener) Hold() (release func()) {
	l.mu.Lock()
	return l.mu.Unlock
}
