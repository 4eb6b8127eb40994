//go:build !linux

package testvm

// The machine runs Linux; the host may run anything that has QEMU and Go.
func first()            { panic("testvm: this is no test machine") }
func modprobe(_ string) { panic("testvm: this is no test machine") }
