// Package drivers foresees, while an image is built, whether each device of a
// board will find its driver. A module that the packing manifest forgets costs
// nothing in the lab and everything in the field: without the regulator of its
// card slot, a board never sees its card.
package drivers

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"halo.internal/image/devicetree"
	"halo.internal/image/kernel"
	"halo.internal/image/manifest"
)

// Check returns an error that names every device of a board, in its merged
// device trees or in its board file, for which the kernel package has a module
// that is neither in the image nor said to be unneeded. The card slot and all
// that it needs must find their modules in the initramfs.
func Check(index *kernel.Index, k manifest.Kernel, board manifest.Board, trees map[string][]byte) error {
	var all []string
	for _, names := range k.Modules {
		all = append(all, names...)
	}
	image, err := selection(index, all)
	if err != nil {
		return err
	}
	boot, err := selection(index, k.Modules[manifest.Boot])
	if err != nil {
		return err
	}
	c := checker{index: index, image: image, boot: boot, unneeded: map[string]bool{}, found: map[string][]string{}, seen: map[string]bool{}}
	if err := c.declare(k.Unneeded); err != nil {
		return err
	}
	for _, file := range slices.Sorted(maps.Keys(trees)) {
		root, err := devicetree.Parse(trees[file])
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		c.tree(devicetree.Devices(root))
	}
	for _, modalias := range board.Devices {
		c.want(modalias, modalias, later)
	}
	if len(c.errs) > 0 {
		return fmt.Errorf("board %s: %w", board.Name, errors.Join(c.errs...))
	}
	return nil
}

// selection returns the names of the modules that are chosen with these.
func selection(index *kernel.Index, names []string) (map[string]bool, error) {
	paths, err := index.Select(names)
	if err != nil {
		return nil, err
	}
	chosen := map[string]bool{}
	for _, p := range paths {
		chosen[kernel.Name(p)] = true
	}
	return chosen, nil
}

type checker struct {
	index       *kernel.Index
	image, boot map[string]bool // names of modules there
	unneeded    map[string]bool

	found map[string][]string // modules by modalias: a board's trees are much alike
	seen  map[string]bool     // messages, for the same reason
	errs  []error
}

// declare takes the list of what HALO does without, which must not contradict
// what it takes along.
func (c *checker) declare(unneeded map[string][]string) error {
	var errs []error
	for why, names := range unneeded {
		for _, n := range names {
			if c.image[kernel.Name(n)] {
				errs = append(errs, fmt.Errorf("module %s is called unneeded (%s), and is in the image", n, why))
			}
			c.unneeded[kernel.Name(n)] = true
		}
	}
	return errors.Join(errs...)
}

// tree checks the devices of one device tree.
func (c *checker) tree(devices []devicetree.Device) {
	byPath := map[string]devicetree.Device{}
	for _, d := range devices {
		byPath[d.Path] = d
		c.want(d.Path, d.Modalias, later)
	}
	for _, slot := range devices {
		if !slot.Slot {
			continue
		}
		reached := map[string]bool{}
		var reach func(path string)
		reach = func(path string) {
			if d, ok := byPath[path]; ok && !reached[path] {
				reached[path] = true
				what := path
				if path != slot.Path {
					what = slot.Path + " cannot do without " + path + ", which"
				}
				c.want(what, d.Modalias, early)
				for _, n := range d.Needs {
					reach(n)
				}
			}
		}
		reach(slot.Path)
	}
}

// When a module must be at hand.
const (
	early = true  // before the root is mounted: in the initramfs
	later = false // in the initramfs or the slot's modules
)

// want notes the modules for a device that are not where they must be.
func (c *checker) want(what, modalias string, early bool) {
	for _, m := range c.modules(modalias) {
		switch {
		case early && !c.boot[m]:
			c.fail("%s needs module %s: expected it in kernel.modules.boot of %s", what, m, manifest.File)
		case !early && !c.image[m] && !c.unneeded[m]:
			c.fail("%s needs module %s: expected it in kernel.modules or kernel.unneeded of %s", what, m, manifest.File)
		}
	}
}

func (c *checker) modules(modalias string) []string {
	names, ok := c.found[modalias]
	if !ok {
		names = c.index.For(modalias)
		c.found[modalias] = names
	}
	return names
}

func (c *checker) fail(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !c.seen[text] {
		c.seen[text] = true
		c.errs = append(c.errs, errors.New(text))
	}
}
