package serial

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kind tells what a port is.
type Kind string

// Kinds.
const (
	USB  Kind = "usb"  // an adapter, or a device that speaks for itself (CDC ACM)
	UART Kind = "uart" // of the board
)

// Info is a port that the device has.
type Info struct {
	Name    string // of the kernel, such as ttyACM0
	Path    string // device file
	Kind    Kind
	Place   string // where it is plugged in, such as 1-1.2:1.0: stays when the kernel's name does not
	Vendor  string // USB vendor ID, such as 1546
	Product string // USB product ID
	Model   string // what the USB device calls itself
	Console bool   // the kernel writes its messages to it
}

const (
	maxPorts = 64
	maxModel = 64 // octets of what a USB device says of itself
)

// Find lists the ports of a system whose file systems are below root, by name: USB ports
// and UARTs, without those that a driver has made for hardware that is not there.
func Find(root string) ([]Info, error) {
	class := filepath.Join(root, "sys/class/tty")
	entries, err := os.ReadDir(class)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	consoles := strings.Fields(text(filepath.Join(class, "console/active")))
	var list []Info
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		place, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err != nil {
			continue // no hardware: a virtual terminal, or it was unplugged just now
		}
		if t := text(filepath.Join(dir, "type")); t == "0" {
			continue // PORT_UNKNOWN: a place of the 8250 driver that is empty
		}
		i := Info{Name: e.Name(), Path: filepath.Join(root, "dev", e.Name()), Kind: UART, Place: filepath.Base(place), Console: slices.Contains(consoles, e.Name())}
		if strings.HasPrefix(i.Name, "ttyUSB") || strings.HasPrefix(i.Name, "ttyACM") {
			i.Kind = USB
			i.describe(root, place)
		}
		if list = append(list, i); len(list) == maxPorts {
			break
		}
	}
	return list, nil
}

// describe reads what the USB device above the port says of itself.
func (i *Info) describe(root, place string) {
	if filepath.Base(place) == i.Name {
		place = filepath.Dir(place) // a port of usb-serial is below the interface
		i.Place = filepath.Base(place)
	}
	for dir := place; len(dir) > len(filepath.Clean(root)) && dir != "/"; dir = filepath.Dir(dir) {
		if i.Vendor = text(filepath.Join(dir, "idVendor")); i.Vendor != "" {
			i.Product = text(filepath.Join(dir, "idProduct"))
			i.Model = printable(text(filepath.Join(dir, "product")))
			return
		}
	}
}

// text reads a short attribute; what can't be read is empty.
func text(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, _ := f.Read(b) // what is missing is empty
	return strings.TrimSpace(string(b[:n]))
}

// printable keeps of what a USB device calls itself what can be shown anywhere.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), maxModel)]
}
