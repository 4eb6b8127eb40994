// Package board knows what is on a board: which of boards/*.toml, or of people's files
// on the device, describes it, by what its device tree says. A file is read strictly, and
// all that is wrong in it is said with its line and what may stand there; a description
// that comes from a node is checked by the same rules.
package board

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"halo.internal/boards"
	"halo.internal/drivers/halow"
	"halo.internal/model"
	"halo.internal/model/strict"
)

// File is one board file.
type File struct {
	model.Board
	Image    string `toml:"image"`    // the board whose image it starts from; empty: its own, if Build says one
	Fallback bool   `toml:"fallback"` // it is taken for a board that no other file describes
	Build
	HaLow *halow.Settings `toml:"halow"` // its HaLow radio, if it has one

}

// Build is what a board's image is made of; package image/manifest checks it.
type Build struct {
	Consoles   []string     `toml:"consoles"`    // console= of the command line; the last becomes /dev/console
	Config     []string     `toml:"config"`      // lines of config.txt
	Firmware   []string     `toml:"firmware"`    // files of gokrazy's firmware package
	Devices    []string     `toml:"devices"`     // modaliases of what is soldered on, where no device tree says so
	Packages   []string     `toml:"packages"`    // Go programs of this board's images besides those of the role
	Virtual    bool         `toml:"virtual"`     // it has the buses of a virtual machine, whose drivers the kernel package lacks
	DeviceTree []DeviceTree `toml:"device_tree"` // none where the machine brings its own
}

// DeviceTree is one blob and what is merged into it at build time.
type DeviceTree struct {
	File      string   `toml:"file"`      // in the boot FAT, as the firmware looks for it
	Source    string   `toml:"source"`    // below the kernel's device trees
	Fragments []string `toml:"fragments"` // overlay sources below boards/
}

// Bounds of files.
const (
	MaxFile  = 64 << 10 // octets of a board file
	maxFiles = 32       // of people's on a device
)

// BuiltIn returns the boards of this release, by name.
var BuiltIn = sync.OnceValues(func() ([]File, error) {
	names, err := fs.Glob(boards.Files, "*.toml")
	if err != nil {
		return nil, err
	}
	var list []File
	for _, name := range names {
		text, err := fs.ReadFile(boards.Files, name)
		if err != nil {
			return nil, err
		}
		f, err := Parse(name, text, boards.Files)
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
})

// Digest names a description: two with one digest are the same.
func Digest(b model.Board) string {
	text, err := json.Marshal(b)
	if err != nil { // numbers that are none; Check refuses them
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Tree is what a device tree says of the board.
type Tree struct {
	Model      string
	Compatible []string // the board's own name first, those of its chip last
}

// ReadTree reads the device tree of the machine; root is where /proc is, empty on a board.
// Where there is none, nothing is known.
func ReadTree(root string) Tree {
	property := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, "/proc/device-tree", name))
		if err != nil {
			return ""
		}
		s := string(b[:min(len(b), 1024)])
		return strings.TrimRight(s, "\x00\n")
	}
	m := property("model")
	return Tree{m[:min(len(m), 128)], strings.FieldsFunc(property("compatible"), func(r rune) bool { return r == 0 })}
}

// fits tells how well a board fits a tree: 0 not at all. A model is followed by the
// board's revision where the Pi's firmware writes it.
func (t Tree) fits(b model.Board) int {
	best := 0
	for _, m := range b.Models {
		switch {
		case m == "":
		case t.Model == m || strings.HasPrefix(t.Model, m+" Rev "):
			best = max(best, 3)
		case len(t.Compatible) > 0 && t.Compatible[0] == m:
			best = max(best, 2)
		case slices.Contains(t.Compatible, m):
			best = max(best, 1)
		}
	}
	return best
}

// Known is what is known of the machine's board.
type Known struct {
	Tree  Tree
	Ref   model.BoardRef
	Board model.Board
}

// Options of Find.
type Options struct {
	Root  string // prefix of /proc; empty on a board
	User  string // folder of people's files, which need not be there
	Image string // name of the board whose image runs, if that is known
}

// Find tells which board the machine is. Of people's files that fit, and then of those
// of the release, it is the one that fits best; among equals the one whose image runs,
// then the first by name. Where none fits, it is the one that is for all others. What is
// wrong in people's files is told in Ref.Problem, and they are left out.
func Find(o Options) (Known, error) {
	builtIn, err := BuiltIn()
	if err != nil {
		return Known{}, err // the build's tests hold this
	}
	k := Known{Tree: ReadTree(o.Root)}
	user, wrong := readUser(o.User)
	if wrong != nil {
		k.Ref.Problem = clip(strings.ReplaceAll(wrong.Error(), "\n", "; "), maxProblem)
	}
	for _, from := range []struct {
		files  []File
		source model.BoardSource
	}{{user, model.BoardFile}, {builtIn, model.BoardBuiltIn}} {
		if f := best(from.files, k.Tree, o.Image); f != nil {
			return k.is(f, from.source), nil
		}
	}
	all := append(user, builtIn...)
	if i := slices.IndexFunc(all, func(f File) bool { return f.Fallback }); i >= 0 {
		return k.is(&all[i], model.BoardGuess), nil
	}
	return Known{}, errors.New("boards: expected one with fallback = true, found none")
}

const maxProblem = 400 // octets of what a heartbeat says is wrong

func (k Known) is(f *File, s model.BoardSource) Known {
	k.Board = f.Board
	k.Ref.Name, k.Ref.Digest, k.Ref.Source = f.Name, Digest(f.Board), s
	return k
}

func best(files []File, t Tree, image string) (found *File) {
	most := 0
	for i := range files {
		f := &files[i]
		fit := 2 * t.fits(f.Board)
		if fit > 0 && f.Name == image {
			fit++
		}
		if fit > most {
			most, found = fit, f
		}
	}
	return found
}

// readUser reads people's files. The error tells what is wrong in those that are left out.
func readUser(dir string) (files []File, wrong error) {
	if dir == "" {
		return nil, nil
	}
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range list {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".toml") {
			continue
		}
		if len(files)+len(errs) == maxFiles {
			errs = append(errs, fmt.Errorf("%s: expected at most %d board files; the rest is left out", dir, maxFiles))
			break
		}
		f, err := readFile(dir, e.Name())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

func readFile(dir, name string) (File, error) {
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err != nil {
		return File{}, err
	}
	return Parse(name, text, boards.Files)
}

// Parse reads a board file; name is that of the file, whose last part is the board's own
// and ".toml", and headers has the headers that it may name, below headers/.
func Parse(name string, text []byte, headers fs.FS) (File, error) {
	if len(text) > MaxFile {
		return File{}, fmt.Errorf("%s: expected at most %d octets, got %d", name, MaxFile, len(text))
	}
	f, problems := parse(name, text, headers)
	if len(problems) > 0 {
		return File{}, strict.Errors(problems)
	}
	return f, nil
}

type headerText struct {
	Use string `toml:"use"` // name of one of boards/headers
	model.BoardHeader
}

// fileText is a file as TOML has it.
type fileText struct {
	File
	Header *headerText `toml:"header"`
}

func parse(name string, text []byte, headers fs.FS) (File, []*strict.Problem) {
	var said fileText
	if problems := strict.Decode(name, text, &said); len(problems) > 0 {
		return File{}, problems
	}
	f := said.File
	c := checker{file: name, at: strict.Locate(text)}
	if h := said.Header; h != nil {
		f.Header = c.header(h, headers)
	}
	c.whole(&f, strings.TrimSuffix(path.Base(filepath.ToSlash(name)), ".toml"))
	slices.SortStableFunc(c.problems, func(a, b *strict.Problem) int { return a.Line - b.Line })
	return f, c.problems
}

// header takes over a header that a file names, or has.
func (c *checker) header(h *headerText, headers fs.FS) *model.BoardHeader {
	if h.Use == "" {
		return &h.BoardHeader
	}
	if len(h.Pins) > 0 || h.Columns != 0 {
		c.bad("header.use", "expected either a header's name or pins of its own, got both")
	}
	var names []string
	list, _ := fs.Glob(headers, "headers/*.toml") // the pattern is good
	for _, n := range list {
		names = append(names, strings.TrimSuffix(path.Base(n), ".toml"))
	}
	if !slices.Contains(names, h.Use) {
		c.bad("header.use", "expected one of %s, got %.40q", strings.Join(names, ", "), h.Use)
		return nil
	}
	file := "headers/" + h.Use + ".toml"
	text, err := fs.ReadFile(headers, file)
	if err != nil {
		c.bad("header.use", "%v", err)
		return nil
	}
	var shared model.BoardHeader
	if problems := strict.Decode(file, text, &shared); len(problems) > 0 {
		c.problems = append(c.problems, problems...)
		return nil
	}
	if h.Name != "" {
		shared.Name = h.Name
	}
	return &shared
}
