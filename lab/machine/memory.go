package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A board's RAM outlives a reset, and its device tree sets a little of it aside
// for the last words of a kernel that panics. A reset here is a new QEMU with
// new memory, except for that little, which lies in a file: as the memory of a
// second NUMA node, because QEMU takes memory of several kinds in no other way.
const (
	lastWords   = "last-words" // the file
	lastWordsMB = 1
	ramStart    = 1 << 30 // of -M virt
)

// memory returns QEMU's options for the machine's memory, and what the kernel
// should know of it: to use none of the second node, except for last words.
func (m *Machine) memory() (args []string, kernel string) {
	mb := m.cfg.MemoryMB
	return []string{
			"-m", fmt.Sprint(mb + lastWordsMB),
			"-object", SharedOrNot(m.cfg.Parts) + fmt.Sprintf(",id=ram,size=%dM", mb),
			"-object", fmt.Sprintf("memory-backend-file,id=words,size=%dM,share=on,mem-path=%s", lastWordsMB, comma(m.lastWords())),
			"-numa", "node,memdev=ram", "-numa", "node,memdev=words",
		}, fmt.Sprintf("mem=%dM ramoops.mem_address=%#x ramoops.mem_size=0x10000 ramoops.record_size=0x4000",
			mb, ramStart+mb<<20)
}

// SharedOrNot is QEMU's kind of memory for a machine with such parts: what plays a
// device of vhost-user reaches it too.
func SharedOrNot(parts []Part) string {
	for _, p := range parts {
		if p.Shared {
			return "memory-backend-memfd,share=on"
		}
	}
	return "memory-backend-ram"
}

func (m *Machine) lastWords() string { return filepath.Join(m.cfg.Dir, lastWords) }

// forget does to the memory what a loss of power does.
func (m *Machine) forget() error {
	if err := os.Remove(m.lastWords()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
