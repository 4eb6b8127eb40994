package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// oops is how an arm64 kernel begins to fall, as /dev/kmsg gives it.
const oops = `6,410,18012345,-;EXT4-fs (vda4): mounted filesystem
4,411,18600001,-;Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000
0,412,18600002,-;Internal error: Oops: 0000000096000044 [#1] SMP
12,413,18600003,-;Oops, says a program
`

func TestParseRecord(t *testing.T) {
	var falls []string
	for line := range strings.Lines(oops) {
		r, err := parseRecord([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if r.falls() {
			falls = append(falls, r.String())
		}
	}
	want := []string{
		"<4>[   18.600001] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
		"<0>[   18.600002] Internal error: Oops: 0000000096000044 [#1] SMP",
	}
	if !slices.Equal(falls, want) {
		t.Errorf("got  %q\nwant %q", falls, want)
	}
	for _, bad := range []string{"", "6,1,2,-", "x,1,2,-;t", "6,1,y,-;t", "6,1;t"} {
		if r, err := parseRecord([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, r)
		}
	}
}

// Lines as the kernel's format strings make them.
func TestFalls(t *testing.T) {
	for _, line := range []string{
		"Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008",
		"Unable to handle kernel paging request at virtual address dead000000000122",
		"Unable to handle kernel read from unreadable memory at virtual address 0000000000000040",
		"Unable to handle kernel access to user memory outside uaccess routines at virtual address 0000ffff8d2c1000",
		"Unable to handle kernel write to read-only memory at virtual address ffff800008e60000",
		"Unable to handle kernel execute from non-executable memory at virtual address ffff000002f8a000",
		"kernel BUG at mm/slub.c:448!",
		"kernel BUG at drivers/net/wireless/morse/mac.c:1021!",
		"Internal error: Oops: 0000000096000004 [#1] SMP",
		"Internal error: Oops: 0000000096000044 [#2] PREEMPT SMP",
		"Internal error: Oops - BUG: 00000000f2000800 [#1] PREEMPT SMP",
		"Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP",
		"Internal error: Oops - BTI: 0000000034000002 [#1] SMP",
		"Internal error: synchronous external abort: 0000000096000210 [#1] SMP",
		"Kernel panic - not syncing: Asynchronous SError Interrupt",
		"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
	} {
		if !(record{text: line}).falls() {
			t.Errorf("expected a fall: %s", line)
		}
		if (record{text: line, user: true}).falls() {
			t.Errorf("a program says it: %s", line)
		}
	}
	for _, line := range []string{
		"BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 33s!",
		"BUG: scheduling while atomic: kworker/0:1/14/0x00000002",
		"BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580",
		"BUG: Bad page state in process halo-agent  pfn:1c0d2",
		"BUG: Bad page map in process gateway-api  pte:e8000040c7ff43 pmd:800000003f2e003",
		"BUG: Bad rss-counter state mm:00000000c5b1c7ac type:MM_ANONPAGES val:1",
		"BUG: using smp_processor_id() in preemptible [00000000] code: halo-mesh/214",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [kworker/0:2:57]",
		"rcu: INFO: rcu_sched self-detected stall on CPU",
		"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
		"INFO: task halo-mesh:214 blocked for more than 120 seconds.",
		"WARNING: CPU: 0 PID: 1 at kernel/workqueue.c:3057 __flush_work+0x1f8/0x220",
		"------------[ cut here ]------------",
		"Ignoring spurious kernel translation fault at virtual address ffff80000a3c2000",
		"Out of memory: Killed process 231 (gateway-api) total-vm:1264012kB",
		"Oops, a driver that talks like this",
		"usb 1-1.2: Internal error: firmware does not answer",
		"mmc0: Internal error: Oops in a text of a driver",
		"morse_sdio: Unable to handle kernel version",
		"EXT4-fs error (device mmcblk0p4): ext4_lookup:1855: inode #2: comm halo-agent: deleted inode referenced: 13",
	} {
		if (record{text: line}).falls() {
			t.Errorf("expected that the machine goes on: %s", line)
		}
	}
}

// device gives one message for each read, as /dev/kmsg does.
type device struct{ reads []any } // string or error

func (d *device) Read(b []byte) (int, error) {
	if len(d.reads) == 0 {
		return 0, unix.EAGAIN
	}
	next := d.reads[0]
	d.reads = d.reads[1:]
	if err, ok := next.(error); ok {
		return 0, err
	}
	return copy(b, next.(string)), nil
}

func TestMessagesKeepsTheLastWholeLines(t *testing.T) {
	d := &device{reads: []any{unix.EPIPE, "damaged"}}
	for i := range 1000 {
		d.reads = append(d.reads, fmt.Sprintf("6,%d,%d,-;message %d\n SUBSYSTEM=x\n", i, i*1000, i))
	}
	got, err := messages(d, 200)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(got)), "\n")
	if len(got) > 200 || lines[len(lines)-1] != "<6>[    0.999000] message 999" || !strings.HasPrefix(lines[0], "<6>[") || len(lines) < 5 {
		t.Errorf("got %q", got)
	}
	if _, err := messages(&device{reads: []any{unix.EIO}}, 200); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, want the device's error", err)
	}
}

// area is a raw area in RAM.
type area struct{ value []byte }

func (a *area) Load() ([]byte, error) {
	if a.value == nil {
		return nil, fs.ErrNotExist
	}
	return a.value, nil
}
func (a *area) Store(b []byte) error { a.value = append([]byte{}, b...); return nil }
func (a *area) Max() int             { return 1000 }

const log = "<6>[    1.000000] usual\n<0>[    2.000000] Kernel panic - not syncing: sysrq\n<4>[    2.1] Call trace:\n"

func TestHarvest(t *testing.T) {
	pstore, dir, raw := t.TempDir(), filepath.Join(t.TempDir(), "crash"), &area{}
	if c, err := harvest(pstore, dir, raw); c != nil || err != nil {
		t.Fatalf("no fall: got %+v, %v", c, err)
	}
	raw.value = []byte(log)
	if c, err := harvest(pstore, "", raw); err != nil || c == nil || c.File != "" || string(raw.value) != log {
		t.Fatalf("nowhere to keep it: got %+v, %v, want the cause alone and all left in place", c, err)
	}
	c, err := harvest(pstore, dir, raw)
	if err != nil || c == nil || c.Cause != "Kernel panic - not syncing: sysrq" {
		t.Fatalf("raw area: got %+v, %v", c, err)
	}
	if b, err := os.ReadFile(c.File); err != nil || string(b) != log {
		t.Errorf("file: got %q, %v", b, err)
	}
	if len(raw.value) != 0 {
		t.Error("the raw area was not cleared: the next start would report it again")
	}
	// pstore numbers the parts from the end.
	for name, content := range map[string]string{"dmesg-ramoops-1": "Oops#1 Part1\nthe end\n", "dmesg-ramoops-2": "Panic#1 Part2\nBUG: the beginning\xff\n"} {
		if err := os.WriteFile(filepath.Join(pstore, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err = harvest(pstore, dir, raw)
	if err != nil || c == nil || filepath.Base(c.File) != "crash-000002.txt" {
		t.Fatalf("pstore: got %+v, %v", c, err)
	}
	if b, err := os.ReadFile(c.File); err != nil || string(b) != "Panic#1 Part2\nBUG: the beginning?\nOops#1 Part1\nthe end\n" {
		t.Errorf("file: got %q, %v", b, err)
	}
	if left, err := os.ReadDir(pstore); err != nil || len(left) != 0 {
		t.Errorf("pstore still holds %v, %v", left, err)
	}
}

func TestHarvestKeepsFewAndNotOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	for range keepCrashes + 3 {
		if _, err := harvest(t.TempDir(), dir, &area{value: []byte(log)}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != keepCrashes || filepath.Base(files[0]) != "crash-000004.txt" {
		t.Errorf("got %q, %v", files, err)
	}
	raw := &area{value: []byte(log)}
	c, err := harvest(t.TempDir(), "/proc/nothing/can/be/written/here", raw)
	if err == nil || c == nil || c.File != "" {
		t.Errorf("got %+v, %v, want the cause and an error", c, err)
	}
	if !bytes.Equal(raw.value, []byte(log)) {
		t.Error("messages that could not be kept elsewhere were cleared")
	}
}

func FuzzParseRecord(f *testing.F) {
	for line := range strings.Lines(oops) {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRecord(b); err == nil && (r.level < 0 || r.level > 7 || strings.Contains(r.text, "\n")) {
			t.Errorf("%+v", r)
		}
	})
}

func TestAwaitMountSeesWhatIsMounted(t *testing.T) {
	if err := awaitMount("/proc"); err != nil {
		t.Error(err)
	}
}
