// Package played is a QEMU for tests that need no machine: it understands the
// options that package machine gives, says what a script tells it to on QMP,
// makes the radios that it is to have, each of which sends to all now and then,
// and answers on forwarded ports as a HALO device that lacks nothing. The
// script is the kernel command line, parameters with a value left out: its n-th
// word is what happens at the n-th start, its last at all that follow.
package played

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const program = "qemu-system-aarch64"

// Main is the TestMain of a package whose tests Install this QEMU: the test's
// own program plays it when it is called by its name.
func Main(m *testing.M) {
	if filepath.Base(os.Args[0]) == program {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// Install puts this QEMU first into the PATH for the time of the test.
func Install(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, program)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

// failed is the exit status where the options are not as expected.
const failed = 3

func run(args []string) int {
	all := strings.Join(args, " ")
	find := func(form string) string {
		if m := regexp.MustCompile(form).FindStringSubmatch(all); m != nil {
			return m[1]
		}
		return ""
	}
	console := find(`id=console,fd=\d+,logfile=(\S+)`)
	old, err := filepath.Glob(filepath.Join(filepath.Dir(console), "console.*.log"))
	if err != nil || os.WriteFile(console, []byte(all+"\n"), 0o600) != nil {
		return failed
	}
	fd, err := strconv.Atoi(find(`id=qmp,fd=(\d+)`))
	if err != nil {
		return failed
	}
	conn, err := net.FileConn(os.NewFile(uintptr(fd), "qmp"))
	if err != nil {
		return failed
	}
	q := qmp{conn}
	q.say(`{"QMP":{"version":{}}}`)
	words := slices.DeleteFunc(strings.Fields(find(`-append (.*?) -`)), func(w string) bool { return strings.Contains(w, "=") })
	switch words[min(len(old), len(words)-1)] {
	case "reset":
		return q.shutdown("guest-reset")
	case "bite":
		q.say(`{"event":"WATCHDOG","data":{"action":"reset"}}`)
		return q.shutdown("guest-reset")
	case "off":
		return q.shutdown("guest-shutdown")
	case "crash":
		fmt.Fprintln(os.Stderr, "no such device: flux-capacitor")
		return 1
	case "well":
		if fd, err := strconv.Atoi(find(`id=air,fd=(\d+)`)); err == nil {
			go serveRadios(fd)
		}
		if err := device(find(`hostfwd=tcp:(127\.0\.0\.1:\d+)`), find(`hostfwd=tcp:127\.0\.0\.1:\d+-:(\d+)`) == "8443"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return failed
		}
	}
	return q.obey()
}

type qmp struct{ net.Conn }

func (q qmp) say(text string) { fmt.Fprintln(q, text) }

func (q qmp) shutdown(reason string) int {
	q.say(`{"event":"SHUTDOWN","data":{"guest":true,"reason":"` + reason + `"}}`)
	return 0
}

// obey carries out commands until one ends the machine.
func (q qmp) obey() int {
	lines := bufio.NewScanner(q)
	for lines.Scan() {
		var command struct{ Execute string }
		if json.Unmarshal(lines.Bytes(), &command) != nil {
			return failed
		}
		switch command.Execute {
		case "system_reset":
			return q.shutdown("host-qmp-system-reset")
		case "system_powerdown":
			q.say(`{"return":{}}`)
			return q.shutdown("guest-shutdown")
		case "cont":
			q.say(`{"error":{"class":"GenericError","desc":"not today"}}`)
		default:
			q.say(`{"return":{}}`)
		}
	}
	return failed // whoever started us closed the line and did not end us
}

// device answers as a gateway, over TLS, or as a node.
func device(address string, gateway bool) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const process = `{"name":"played","state":"ok","build":{"version":"v0"}}`
		if r.URL.Path == "/api/diag" {
			fmt.Fprintf(w, `{"state":"online","build":{"version":"v0"},"health":[%s]}`, process)
			return
		}
		fmt.Fprint(w, process)
	}))
	s.Listener.Close()
	s.Listener = l
	if gateway {
		s.StartTLS()
	} else {
		s.Start()
	}
	return nil
}
