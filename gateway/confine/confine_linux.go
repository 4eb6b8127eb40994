package confine

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

const (
	read  = ll.AccessFSReadFile | ll.AccessFSReadDir
	write = ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSMakeSock |
		ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
	// handled is all that landlock knows of files but connecting to sockets: those of the
	// device's other processes are made anew whenever they restart.
	handled = 1<<16 - 1

	scopedABI = 6
	referABI  = 2
	newest    = 7 // of which anything is asked here
)

// Process confines all threads of this process. Where the kernel can do only some of it,
// that is done, and the outcome says so; an error says what failed though it should not
// have.
func Process(n Needs) (Outcome, error) {
	var o Outcome
	if v, err := ll.LandlockGetABIVersion(); err == nil && v > 0 {
		o.ABI = min(v, newest)
		if err := files(n, o.ABI); err != nil {
			return Outcome{}, fmt.Errorf("landlock: %w", err)
		}
		o.Scoped = o.ABI >= scopedABI
	} else if err := control(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil { // which landlock does itself
		return o, fmt.Errorf("no new privileges: %w", err)
	}
	if err := capabilities(n.Owner); err != nil {
		return o, fmt.Errorf("capabilities: %w", err)
	}
	o.Capabilities = true
	return o, nil
}

func files(n Needs, abi int) error {
	c := landlock.Config{HandledAccessFS: handled, Scoped: ll.ScopeAbstractUnixSocket | ll.ScopeSignal}.BestEffort()
	own := landlock.AccessFSSet(read | write)
	if abi >= referABI {
		own |= ll.AccessFSRefer // renames from one of its folders to another
	}
	var rules []landlock.Rule
	for _, p := range n.Write {
		rules = append(rules, landlock.PathAccess(own, p))
	}
	for _, p := range n.Read {
		info, err := os.Stat(p)
		if err != nil {
			continue
		}
		access := landlock.AccessFSSet(read)
		if !info.IsDir() {
			access = ll.AccessFSReadFile
			if info.Mode()&os.ModeDevice != 0 {
				access |= ll.AccessFSWriteFile // to /dev/null
			}
		}
		rules = append(rules, landlock.PathAccess(access, p))
	}
	return c.Restrict(rules...)
}

// What is kept of the capabilities: ports below 1024, and for whoever runs it by hand as
// the superuser, files that are his.
const (
	kept  = 1 << unix.CAP_NET_BIND_SERVICE
	owner = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_CHOWN
)

func capabilities(asOwner bool) error {
	keep := uint64(kept)
	if asOwner {
		keep |= owner
	}
	// Who has none has none to lose. The bounding set may stay: without new privileges no
	// program that is run gets more than this process has.
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has [2]unix.CapUserData
	if err := unix.Capget(&head, &has[0]); err != nil {
		return err
	}
	permitted := uint64(has[1].Permitted)<<32 | uint64(has[0].Permitted)
	keep &= permitted
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	head.Pid = 0
	if _, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return errno
	}
	return nil
}

// control makes a prctl call on each thread: the kernel keeps credentials of each.
func control(option, argument uintptr) error {
	if _, _, errno := psx.Syscall3(unix.SYS_PRCTL, option, argument, 0); errno != 0 {
		return errno
	}
	return nil
}
