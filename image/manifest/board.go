package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"halo.internal/drivers/halow"
)

// Board is one boards/*.toml.
type Board struct {
	Name       string          `toml:"name"`
	Models     []string        `toml:"models"`      // /proc/device-tree/model, or a compatible string
	Consoles   []string        `toml:"consoles"`    // console= of the command line; the last becomes /dev/console
	Config     []string        `toml:"config"`      // lines of config.txt
	Firmware   []string        `toml:"firmware"`    // files of gokrazy's firmware package
	Devices    []string        `toml:"devices"`     // modaliases of what is soldered on, where no device tree says so
	Packages   []string        `toml:"packages"`    // Go programs of this board's images besides those of the role
	Virtual    bool            `toml:"virtual"`     // it has the buses of a virtual machine, whose drivers the kernel package lacks
	DeviceTree []DeviceTree    `toml:"device_tree"` // none where the machine brings its own
	HaLow      *halow.Settings `toml:"halow"`       // its HaLow radio, if it has one
}

// DeviceTree is one blob and what is merged into it at build time.
type DeviceTree struct {
	File      string   `toml:"file"`      // in the boot FAT, as the firmware looks for it
	Source    string   `toml:"source"`    // below the kernel's device trees
	Fragments []string `toml:"fragments"` // overlay sources below boards/
}

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
	var boards []Board
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		board, err := ParseBoard(filepath.Join(BoardsDir, filepath.Base(path)), b)
		if err != nil {
			return nil, err
		}
		boards = append(boards, board)
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
// board's own name.
func ParseBoard(name string, b []byte) (Board, error) {
	var board Board
	if err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(&board); err != nil {
		if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
			row, _ := strict.Errors[0].Position()
			return Board{}, fmt.Errorf("%s:%d: unknown key %q; expected one of name, models, consoles, config, firmware, devices, packages, virtual, [[device_tree]] file source fragments, [halow] chip bus module calibration delay_s reset_line reset_active_high host scheme antenna_gain_dbi cable_loss_db max_power_dbm params", name, row, strings.Join(strict.Errors[0].Key(), "."))
		}
		if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, col := bad.Position()
			return Board{}, fmt.Errorf("%s:%d:%d: %s", name, row, col, bad.Error())
		}
		return Board{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := board.check(strings.TrimSuffix(filepath.Base(name), ".toml")); err != nil {
		return Board{}, fmt.Errorf("%s: %w", name, err)
	}
	if board.HaLow != nil {
		if err := board.HaLow.Check(); err != nil {
			return Board{}, halowErrors(name, b, err)
		}
	}
	return board, nil
}

// halowErrors says in which line of a board file each problem of its table
// [halow] is.
func halowErrors(name string, b []byte, err error) error {
	problems, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", name, err)
	}
	var errs []error
	for _, e := range problems.Unwrap() {
		row := 0
		if p, ok := errors.AsType[*halow.Problem](e); ok {
			row = halowLine(b, p.Key)
		}
		errs = append(errs, fmt.Errorf("%s:%d: %w", name, row, e))
	}
	return errors.Join(errs...)
}

// halowLine finds the line of a key of [halow], or that of the table where the
// key is not there. Parameters have a table of their own, [halow.params], or stand
// in the line of params.
func halowLine(b []byte, key string) int {
	table, last, inside := 0, key[strings.LastIndexByte(key, '.')+1:], false
	row := 0
	for line := range strings.Lines(string(b)) {
		row++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			if inside = strings.HasPrefix(line, "[halow"); inside && table == 0 {
				table = row
			}
			continue
		}
		got, value, ok := strings.Cut(line, "=")
		got = strings.Trim(strings.TrimSpace(got), `"'`)
		if inside && ok && (got == last || got == "params" && strings.HasPrefix(key, "params.") && strings.Contains(value, last)) {
			return row
		}
	}
	return table
}

var (
	consoleForm  = regexp.MustCompile(`^tty[A-Za-z]*[0-9]+(,[0-9]+[a-z0-9]*)?$`)
	modaliasForm = regexp.MustCompile(`^[a-z]+:[!-~]+$`)
	baseFileForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	programForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(/[a-zA-Z0-9][a-zA-Z0-9._-]*)+$`)
)

func (b Board) check(file string) error {
	var errs []error
	bad := func(key, expected string, got any) {
		errs = append(errs, fmt.Errorf("%s: expected %s, got %q", key, expected, fmt.Sprint(got)))
	}
	if b.Name != file {
		bad("name", "the file's name, "+file, b.Name)
	}
	if len(b.Models) == 0 {
		bad("models", "at least one device tree model", "none")
	}
	if len(b.Consoles) == 0 {
		bad("consoles", "at least one console", "none")
	}
	for _, c := range b.Consoles {
		if !consoleForm.MatchString(c) {
			bad("consoles", "a console such as ttyAMA0,115200", c)
		}
	}
	for _, l := range b.Config {
		if strings.ContainsAny(l, "\r\n") || len(l) > 96 { // the firmware cuts lines at 98
			bad("config", "a line of at most 96 characters", l)
		}
	}
	for _, f := range b.Firmware {
		if !baseFileForm.MatchString(f) {
			bad("firmware", "a file name", f)
		}
	}
	for _, d := range b.Devices {
		if !modaliasForm.MatchString(d) {
			bad("devices", "a modalias such as usb:v0424pEC00d0200dcFFdsc00dp01icFFisc00ipFFin00", d)
		}
	}
	for _, p := range b.Packages {
		if !programForm.MatchString(p) {
			bad("packages", "a Go package such as halo.internal/cmd/halo-air", p)
		}
	}
	for _, d := range b.DeviceTree {
		if !baseFileForm.MatchString(d.File) || !strings.HasSuffix(d.File, ".dtb") {
			bad("device_tree.file", "a name that ends in .dtb", d.File)
		}
		if !filepath.IsLocal(d.Source) {
			bad("device_tree.source", "a path below the kernel's device trees", d.Source)
		}
		for _, f := range d.Fragments {
			if !baseFileForm.MatchString(f) || !strings.HasSuffix(f, ".dtso") {
				bad("device_tree.fragments", "a name that ends in .dtso", f)
			}
		}
	}
	return errors.Join(errs...)
}
