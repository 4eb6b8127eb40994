package i2c

import (
	"context"
	"fmt"
	"image"
	"math"
	"time"

	"periph.io/x/conn/v3/i2c"
)

// Display is a Device that people look at.
type Display interface {
	Device
	// Size is that of the panel in dots.
	Size() image.Point
	// Show writes lines of text from the top, in place of all that is shown. What
	// does not fit is cut.
	Show(ctx context.Context, lines []string) error
	// Draw shows an image, of which the upper left corner is the panel's: what is
	// brighter than half is lit.
	Draw(ctx context.Context, img image.Image) error
}

// SSD1306 drives panels of 128×64 and 128×32 dots with a Solomon Systech SSD1306
// (revision 1.1). It is no template, since it takes pictures and not numbers.
type SSD1306 struct{}

var ssd1306Spec = Spec{
	Name:        "ssd1306",
	Title:       "SSD1306: display",
	Datasheet:   "SSD1306, revision 1.1",
	Role:        Send,
	Addresses:   []uint16{0x3C, 0x3D},
	Interval:    defaultPeriod,
	MinInterval: 100 * time.Millisecond,
	Display:     true,
	Parameters: []Parameter{
		{Name: "height", Title: "Dots from top to bottom: 64 or 32", Default: 64, Min: 32, Max: 64},
		{Name: "upside_down", Title: "1: turned by 180°", Default: 0, Min: 0, Max: 1},
	},
	Outputs: []Output{
		{Name: "on", Title: "Lit", Min: 0, Max: 1, Whole: true, Safe: 1},
		{Name: "contrast", Title: "Contrast", Min: 0, Max: 255, Whole: true, Safe: 127},
	},
}

// Spec implements Driver.
func (SSD1306) Spec() *Spec { return &ssd1306Spec }

// Open implements Driver. The Device is a Display.
func (SSD1306) Open(bus i2c.Bus, addr uint16, params map[string]float64) (Device, error) {
	values, err := ssd1306Spec.parameters(params)
	if err != nil {
		return nil, err
	}
	if values[0] != 64 && values[0] != 32 {
		return nil, fmt.Errorf("ssd1306: parameter height: expected 64 or 32, got %v", values[0])
	}
	d := &panel{pages: int(values[0]) / 8, turned: values[1] != 0, on: true, contrast: 127}
	d.run = runner{bus: bus, addr: addr, retries: 2}
	return d, nil
}

const panelWidth = 128

// panel is a display: pages of eight rows, of which an octet is a column.
type panel struct {
	run      runner
	pages    int
	turned   bool
	on       bool
	contrast byte
	ready    bool
	want     picture
	shown    picture
}

// picture is what is lit: pages of eight rows.
type picture [8][panelWidth]byte

// Size implements Display.
func (d *panel) Size() image.Point { return image.Pt(panelWidth, d.pages*8) }

// Read implements Device: it looks after the panel, which has nothing to measure.
func (d *panel) Read(ctx context.Context, dst []Sample) ([]Sample, error) {
	return dst, d.refresh(ctx)
}

// Send implements Device.
func (d *panel) Send(ctx context.Context, outputs map[string]float64) error {
	on, contrast := d.on, d.contrast
	for name, v := range outputs {
		switch {
		case name == "on" && ssd1306Spec.Outputs[0].check(v) == nil:
			on = v != 0
		case name == "contrast" && ssd1306Spec.Outputs[1].check(v) == nil:
			contrast = byte(v)
		default:
			return fmt.Errorf("ssd1306: expected on (0 or 1) or contrast (0 to 255), got %.40q = %v", name, v)
		}
	}
	wasOn, was := d.on, d.contrast
	d.on, d.contrast = on, contrast
	err := d.refresh(ctx)
	if err == nil {
		err = d.command(ctx, 0x81, d.contrast, d.power())
	}
	if err != nil {
		d.on, d.contrast, d.ready = wasOn, was, false // what has failed must not happen later
	}
	return err
}

// power is the command that lights the panel, or darkens it.
func (d *panel) power() byte {
	if d.on {
		return 0xAF
	}
	return 0xAE
}

// Show implements Display.
func (d *panel) Show(ctx context.Context, lines []string) error {
	var dots picture
	for page, line := range lines[:min(len(lines), d.pages)] {
		x := 0
		for _, c := range line {
			if x+cellWidth > panelWidth {
				break
			}
			columns := glyph(c)
			x += copy(dots[page][x:], columns[:])
		}
	}
	return d.show(ctx, dots)
}

// Draw implements Display.
func (d *panel) Draw(ctx context.Context, img image.Image) error {
	var dots picture
	corner := img.Bounds().Min
	visible := img.Bounds().Intersect(image.Rectangle{corner, corner.Add(d.Size())})
	for y := visible.Min.Y; y < visible.Max.Y; y++ {
		for x := visible.Min.X; x < visible.Max.X; x++ {
			r, g, b, _ := img.At(x, y).RGBA()
			if 299*r+587*g+114*b > 500*math.MaxUint16 {
				dots[(y-corner.Y)/8][x-corner.X] |= 1 << ((y - corner.Y) % 8)
			}
		}
	}
	return d.show(ctx, dots)
}

// show has the panel show that from now on, or what it showed before where it fails.
func (d *panel) show(ctx context.Context, dots picture) error {
	was := d.want
	d.want = dots
	err := d.refresh(ctx)
	if err != nil {
		d.want = was // what has failed must not happen later
	}
	return err
}

// refresh sends the pages that are not as they should be: all of them to a panel
// that has lost its power, of which it tells that it is dark.
func (d *panel) refresh(ctx context.Context) error {
	if d.ready {
		status, err := d.run.transact(ctx, nil, 0, 1, NoCRC)
		d.ready = err == nil && (status[0]&0x40 == 0) == d.on // 8.1.5.1
		if err != nil {
			return err
		}
	}
	all := !d.ready
	if all {
		if err := d.start(ctx); err != nil {
			return err
		}
	}
	for p := range d.pages {
		if !all && d.want[p] == d.shown[p] {
			continue
		}
		if err := d.page(ctx, p); err != nil {
			d.ready = false
			return err
		}
	}
	if all {
		if err := d.command(ctx, d.power()); err != nil {
			return err
		}
	}
	d.ready = true
	return nil
}

// start is the data sheet's application example, with the charge pump (appendix).
func (d *panel) start(ctx context.Context) error {
	multiplex, pins := byte(d.pages*8-1), byte(0x12)
	if d.pages == 4 {
		pins = 0x02
	}
	segments, scan := byte(0xA1), byte(0xC8)
	if d.turned {
		segments, scan = 0xA0, 0xC0
	}
	return d.command(ctx,
		0xAE,            // dark, until its memory has been written
		0xA8, multiplex, // rows
		0xD3, 0x00, 0x40, // no offset, from the first row
		segments, scan,
		0xDA, pins,
		0x81, d.contrast,
		0xA4, 0xA6, // what the memory has, not inverted
		0xD5, 0x80, // clock
		0x8D, 0x14, // charge pump
		0x20, 0x00, // octets go on along a page
	)
}

func (d *panel) page(ctx context.Context, p int) error {
	if err := d.command(ctx, 0x21, 0, panelWidth-1, 0x22, byte(p), byte(p)); err != nil {
		return err
	}
	var w [1 + panelWidth]byte
	w[0] = 0x40 // data follow
	copy(w[1:], d.want[p][:])
	if _, err := d.run.transact(ctx, w[:], 0, 0, NoCRC); err != nil {
		return err
	}
	d.shown[p] = d.want[p]
	return nil
}

func (d *panel) command(ctx context.Context, octets ...byte) error {
	_, err := d.run.transact(ctx, append([]byte{0x00}, octets...), 0, 0, NoCRC)
	return err
}

var (
	_ Driver  = SSD1306{}
	_ Display = (*panel)(nil)
)
