// Package endtest holds the tests of how a test machine ends: each starts the
// package's own test program once more, as the host's part of a machine whose
// tests then do what is asked of them.
package endtest
