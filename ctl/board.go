package ctl

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

func (a *app) boardCommand() *cobra.Command {
	c := a.ofNode("board [NODE]", "what is on a node's board: its header as a picture, buses, ports, radios, outputs, inputs", cobra.MaximumNArgs(1), a.boardShow)
	ofGateway := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if !a.here || len(args) > 0 {
			return ofGateway(c, args)
		}
		b, err := local.NewAgent(filepath.Join(filepath.Dir(a.env.MeshSocket), filepath.Base(paths.AgentSocket))).Board(c.Context())
		if err != nil {
			return err
		}
		return a.show(b, func(w io.Writer) error { return writeBoard(w, b) })
	}
	c.Long = `Board shows the board that a node is, as it has found by its device tree, with the
header as it lies before you: in the middle the numbers of the pins, beside them
what they are, and what they are used for or can be. Without NODE it is the
gateway's, with --local that of the device that haloctl runs on.

Another file in /perm/halo/boards/ on the node goes before that of the release.`
	return c
}

func (a *app) boardsCommand() *cobra.Command {
	return a.call("boards", "all boards that are known", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		list, err := c.Boards(ctx)
		if err != nil {
			return err
		}
		return a.show(items[model.BoardDescription]{list}, func(w io.Writer) error {
			t := table.New("BOARD", "TITLE", "PINS", "BUSES", "FROM", "MODELS", "DIGEST").Wide(5)
			for _, b := range list {
				from, pins := "a node's file", 0
				if b.BuiltIn {
					from = "the release"
				}
				if b.Header != nil {
					pins = len(b.Header.Pins)
				}
				t.Row(b.Name, b.Title, pins, len(b.I2C), from, strings.Join(b.Models, "; "), b.Digest)
			}
			return t.Write(w)
		})
	})
}

func (a *app) boardShow(ctx context.Context, c *client.Client, args []string) error {
	node := ""
	if len(args) == 1 {
		node = args[0]
	} else {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(nodes, func(n apitype.Node) bool { return n.Role == model.RoleGateway }); i >= 0 {
			node = nodes[i].ID
		}
	}
	b, err := c.NodeBoard(ctx, node)
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	return a.show(b, func(w io.Writer) error { return writeBoard(w, b) })
}

func writeBoard(w io.Writer, n model.NodeBoard) error {
	b := n.Board
	t := table.New()
	t.Row("Board", strings.TrimSpace(b.Name+"  "+b.Title))
	t.Row("Model", n.Model)
	from := "the release"
	switch n.Ref.Source {
	case model.BoardFile:
		from = "/perm/halo/boards/" + b.Name + ".toml"
	case model.BoardGuess:
		from = "a guess: no file names this model"
	}
	t.Row("From", from)
	if n.Ref.Problem != "" {
		t.Row("Left out", n.Ref.Problem)
	}
	if p := b.Power; p != nil {
		supply := p.Source
		if p.Volts > 0 {
			supply += fmt.Sprintf(", %g V", p.Volts)
		}
		if p.Watts > 0 {
			supply += fmt.Sprintf(", %g W", p.Watts)
		}
		t.Row("Power", supply)
	}
	list := append([]section{{1, t}}, boardSections(b)...)
	if b.Header != nil {
		list = slices.Insert(list, 1, section{len(b.Header.Pins), headerTable(*b.Header)})
	}
	return writeTables(w, list)
}

// headerTable draws the header: numbers in the middle, left columns to the left.
func headerTable(h model.BoardHeader) *table.Table {
	var heading []string
	for c := range h.Columns {
		cells := []string{"PIN", "NAME", "USE"}
		if left(c, h.Columns) {
			slices.Reverse(cells)
		}
		heading = append(heading, cells...)
	}
	t := table.New(heading...)
	pins := map[int]model.BoardPin{}
	most := 0
	for _, p := range h.Pins {
		pins[p.Pin], most = p, max(most, p.Pin)
	}
	for first := 1; first <= most; first += h.Columns {
		var row []any
		for c := range h.Columns {
			cells := []any{"", "", ""}
			if p, ok := pins[first+c]; ok {
				use := p.Use
				if use == "" && len(p.Functions) > 0 {
					use = "(" + strings.Join(p.Functions, ", ") + ")"
				}
				cells = []any{p.Pin, p.Name, use}
			}
			if left(c, h.Columns) {
				slices.Reverse(cells)
			}
			row = append(row, cells...)
		}
		t.Row(row...)
	}
	return t
}

// left tells whether a column's words are left of its numbers.
func left(column, columns int) bool { return columns > 1 && column < (columns+1)/2 }

func boardSections(b model.Board) []section {
	buses := table.New("BUS", "DEVICE", "SDA", "SCL", "FOR", "ADDRESSES IN USE")
	for _, v := range b.I2C {
		var used []string
		for _, u := range v.InUse {
			used = append(used, fmt.Sprintf("%#02x %s", u.Address, u.By))
		}
		buses.Row(v.Name, v.Device, v.SDA, v.SCL, v.Taken, strings.Join(used, ", "))
	}
	ports := table.New("PORT", "DEVICE", "TX", "RX", "FOR")
	for _, v := range b.Serial {
		ports.Row(v.Name, v.Device, v.TX, v.RX, v.Taken)
	}
	radios := table.New("RADIO", "DRIVER", "BUS", "RESET", "WAKE", "BUSY", "IRQ", "DELAY", "CALIBRATION")
	for _, v := range b.Radios {
		var delay table.Cell
		if v.DelayS != nil {
			delay = table.In("s", "", *v.DelayS)
		}
		radios.Row(v.Name, v.Driver, v.Bus, v.Reset, v.Wake, v.Busy, v.IRQ, delay, v.Calibration)
	}
	lamps := table.New("LED", "COLOUR", "STATUS")
	for _, v := range b.LEDs {
		lamps.Row(v.Name, v.Colour, v.Status)
	}
	buttons := table.New("BUTTON", "DOES", "LINE", "PRESSED")
	for _, v := range b.Buttons {
		pressed := "low"
		if v.High {
			pressed = "high"
		}
		buttons.Row(v.Name, v.Does, v.Line, pressed)
	}
	outputs := table.New("OUTPUT", "TITLE", "DRIVES", "SAFE")
	for _, v := range b.Outputs {
		drives := v.Line
		if v.PWM != nil {
			drives = fmt.Sprintf("%s/%d, %g Hz", v.PWM.Device, v.PWM.Channel, v.PWM.Hz)
		}
		safe := v.Safe
		if safe == "" {
			safe = model.SafeOff
		}
		outputs.Row(v.Name, v.Title, drives, string(safe))
	}
	inputs := table.New("INPUT", "TITLE", "LINE", "ON", "EVENT")
	for _, v := range b.Inputs {
		on, event := "high", v.Event
		if v.ActiveLow {
			on = "low"
		}
		if event == "" {
			event = model.Info
		}
		inputs.Row(v.Name, v.Title, v.Line, on, string(event))
	}
	return []section{{len(b.I2C), buses}, {len(b.Serial), ports}, {len(b.Radios), radios}, {len(b.LEDs), lamps}, {len(b.Buttons), buttons}, {len(b.Outputs), outputs}, {len(b.Inputs), inputs}}
}
