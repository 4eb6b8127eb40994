// Package iface tells whether the interface under a socket is still the one of its
// name. Interfaces come, go and are made anew: a socket at one that was removed hears
// nothing, and nobody tells it.
package iface

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrAnew is wrapped by what Check returns when another interface has the name.
var ErrAnew = errors.New("was made anew")

// every is the time between two looks of Watch.
const every = 2 * time.Second

// Iface is an interface as it was found.
type Iface struct {
	Name  string
	Index int
}

// Find returns the interface that has the name now, in the network namespace of the
// calling thread. It asks for that alone (SIOCGIFINDEX, netdevice(7)): package net
// reads the whole table of interfaces, and services look as long as they run.
func Find(name string) (Iface, error) {
	fd, err := ask()
	if err != nil {
		return Iface{}, fmt.Errorf("interface %s: %w", name, err)
	}
	defer unix.Close(fd)
	return find(fd, name)
}

// ask returns a socket that find asks at.
func ask() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) }

func find(fd int, name string) (Iface, error) {
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return Iface{}, fmt.Errorf("interface %s: %w", name, err)
	}
	return Iface{name, int(ifr.Uint32())}, nil
}

// Check returns an error when the interface is gone or another.
func (i Iface) Check() error {
	fd, err := ask()
	if err != nil {
		return fmt.Errorf("interface %s: %w", i.Name, err)
	}
	defer unix.Close(fd)
	return i.check(fd)
}

func (i Iface) check(fd int) error {
	now, err := find(fd, i.Name)
	if err != nil {
		return err
	}
	if now.Index != i.Index {
		return fmt.Errorf("interface %s: %w", i.Name, ErrAnew)
	}
	return nil
}

// Watch checks now and then, and returns the error that a check ends with, or nil when
// ctx has ended.
func (i Iface) Watch(ctx context.Context) error {
	fd, err := ask()
	if err != nil {
		return fmt.Errorf("interface %s: %w", i.Name, err)
	}
	defer unix.Close(fd)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := i.check(fd); err != nil {
				return err
			}
		}
	}
}
