package manifest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"halo.internal/drivers/board"
	"halo.internal/drivers/halow"
	"halo.internal/model/strict"
)

// Board is what an image is made of for a board, of its boards/*.toml.
type Board struct {
	Name       string
	Models     []string        // models of the device trees of all boards that start from the image
	Consoles   []string        // the last becomes /dev/console
	Config     []string        // lines of config.txt
	Firmware   []string        // files of gokrazy's firmware package
	Devices    []string        // modaliases of what is soldered on, where no device tree says so
	Packages   []string        // Go programs of this board's images besides those of the role
	Virtual    bool            // it has the buses of a virtual machine, whose drivers the kernel package lacks
	DeviceTree []DeviceTree    // none where the machine brings its own
	HaLow      *halow.Settings // its HaLow radio, if it has one

	image string // the board whose image it starts from
}

// DeviceTree is one blob and what is merged into it at build time.
type DeviceTree = board.DeviceTree

// BoardsDir is the folder of board files at the top of the repository.
const BoardsDir = "boards"

// Boards reads every board file, sorted by name.
func Boards(root string) ([]Board, error) {
	paths, err := filepath.Glob(filepath.Join(root, BoardsDir, "*.toml"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("expected board files in %s, found none", filepath.Join(root, BoardsDir))
	}
	slices.Sort(paths)
	var boards, hosted []Board
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		board, err := ParseBoard(filepath.Join(BoardsDir, filepath.Base(path)), b, os.DirFS(filepath.Join(root, BoardsDir)))
		switch {
		case err != nil:
			return nil, err
		case board.image != "":
			hosted = append(hosted, board)
		case len(board.Consoles) > 0: // others have no image
			boards = append(boards, board)
		}
	}
	for _, h := range hosted {
		i := slices.IndexFunc(boards, func(b Board) bool { return b.Name == h.image })
		if i < 0 {
			return nil, fmt.Errorf("%s: image: expected a board with an image, got %q", filepath.Join(BoardsDir, h.Name+".toml"), h.image)
		}
		boards[i].Models = append(boards[i].Models, h.Models...)
	}
	return boards, nil
}

// ReadBoard reads the board of that name.
func ReadBoard(root, name string) (Board, error) {
	boards, err := Boards(root)
	if err != nil {
		return Board{}, err
	}
	var names []string
	for _, b := range boards {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return Board{}, fmt.Errorf("board: expected one of %s, got %q", strings.Join(names, ", "), name)
}

// ParseBoard reads one board file; name is used in errors and must end in the
// board's own name. headers is the folder with the headers that it may name.
func ParseBoard(name string, b []byte, headers fs.FS) (Board, error) {
	f, err := board.Parse(name, b, headers)
	if err != nil {
		return Board{}, err
	}
	made := Board{
		Name: f.Name, Models: slices.Clone(f.Models), Consoles: f.Consoles, Config: append(f.Config, f.Overlay...), Firmware: f.Firmware,
		Devices: f.Devices, Packages: f.Packages, Virtual: f.Virtual, DeviceTree: f.DeviceTree, HaLow: f.HaLow, image: f.Image,
	}
	if err := made.check(name, strict.Locate(b)); err != nil {
		return Board{}, err
	}
	return made, nil
}

var (
	consoleForm  = regexp.MustCompile(`^tty[A-Za-z]*[0-9]+(,[0-9]+[a-z0-9]*)?$`)
	modaliasForm = regexp.MustCompile(`^[a-z]+:[!-~]+$`)
	baseFileForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	programForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(/[a-zA-Z0-9][a-zA-Z0-9._-]*)+$`)
)

func (b Board) check(file string, at *strict.Positions) error {
	var problems []*strict.Problem
	bad := func(key, expected string, got any) {
		problems = append(problems, &strict.Problem{File: file, Line: at.Line(key), Key: key, Text: fmt.Sprintf("expected %s, got %q", expected, fmt.Sprint(got))})
	}
	parts := len(b.Consoles) + len(b.Config) + len(b.Firmware) + len(b.Devices) + len(b.Packages) + len(b.DeviceTree)
	if b.Virtual {
		parts++
	}
	switch {
	case b.image != "" && parts > 0:
		bad("image", "none beside what an image of its own is made of", b.image)
	case parts > 0 && len(b.Consoles) == 0:
		bad("consoles", "at least one console of a board with an image", "none")
	}
	for i, c := range b.Consoles {
		if !consoleForm.MatchString(c) {
			bad(fmt.Sprintf("consoles[%d]", i), "a console such as ttyAMA0,115200", c)
		}
	}
	for i, l := range b.Config {
		if strings.ContainsAny(l, "\r\n") || len(l) > 96 { // the firmware cuts lines at 98
			bad(fmt.Sprintf("config[%d]", i), "a line of at most 96 characters", l)
		}
	}
	for i, f := range b.Firmware {
		if !baseFileForm.MatchString(f) {
			bad(fmt.Sprintf("firmware[%d]", i), "a file name", f)
		}
	}
	for i, d := range b.Devices {
		if !modaliasForm.MatchString(d) {
			bad(fmt.Sprintf("devices[%d]", i), "a modalias such as usb:v0424pEC00d0200dcFFdsc00dp01icFFisc00ipFFin00", d)
		}
	}
	for i, p := range b.Packages {
		if !programForm.MatchString(p) {
			bad(fmt.Sprintf("packages[%d]", i), "a Go package such as halo.internal/cmd/halo-air", p)
		}
	}
	for i, d := range b.DeviceTree {
		key := fmt.Sprintf("device_tree[%d]", i)
		if !baseFileForm.MatchString(d.File) || !strings.HasSuffix(d.File, ".dtb") {
			bad(key+".file", "a name that ends in .dtb", d.File)
		}
		if !filepath.IsLocal(d.Source) {
			bad(key+".source", "a path below the kernel's device trees", d.Source)
		}
		for _, f := range d.Fragments {
			if !baseFileForm.MatchString(f) || !strings.HasSuffix(f, ".dtso") {
				bad(key+".fragments", "a name that ends in .dtso", f)
			}
		}
	}
	return strict.Errors(problems)
}
