package ctl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

// formats of exports, and the ends of their files' names.
var formats = []struct{ name, end string }{{"csv", ".csv"}, {"ndjson", ".ndjson"}, {"prometheus", ".prom"}, {"openmetrics", ".txt"}}

func checkFormat(format string) error {
	for _, f := range formats {
		if f.name == format {
			return nil
		}
	}
	return &usageError{fmt.Errorf("--format: expected csv, ndjson, prometheus or openmetrics, got %q", format)}
}

// formatOf tells a format by a file's name.
func formatOf(name string) (string, error) {
	for _, f := range formats {
		if strings.EqualFold(filepath.Ext(name), f.end) {
			return f.name, nil
		}
	}
	return "", &usageError{fmt.Errorf("%s: --format: expected csv, ndjson, prometheus or openmetrics, since the name does not tell", name)}
}

func (a *app) telemetryExport() *cobra.Command {
	var sel selectionFlags
	var format, out string
	c := a.ofNode("export [NODE…]", "readings as they were made, as a file", cobra.ArbitraryArgs, func(ctx context.Context, c *client.Client, args []string) error {
		if err := checkFormat(format); err != nil {
			return err
		}
		s, err := sel.selection(ctx, c, args)
		if err != nil {
			return err
		}
		if out == "" || out == "-" {
			return notFound(c.Export(ctx, s, format, a.env.Stdout), "haloctl node list shows the nodes")
		}
		n, err := toFile(out, func(w io.Writer) error { return c.Export(ctx, s, format, w) })
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		fmt.Fprintf(a.env.Stderr, "Wrote %s: %s.\n", out, table.Bytes(n))
		return nil
	})
	c.Long = `Export writes readings as they were made, of all nodes or of those named. What was
thinned since is not among them: telemetry range has that.

csv has the columns time, node, metric, unit and value; ndjson an object on each
line; prometheus its text format with times in milliseconds; openmetrics what
promtool makes blocks of. telemetry import reads all of them.`
	c.Example = "  haloctl telemetry export n01 --from 7d --out n01.csv\n  haloctl telemetry export --metric 'gps.*' --format ndjson --from 24h | jq ."
	sel.add(c)
	c.Flags().StringVar(&format, "format", "csv", "`format`: csv, ndjson, prometheus or openmetrics")
	c.Flags().StringVar(&out, "out", "", "`file` to write, whole or not at all (default: standard output)")
	return c
}

// toFile has a file written beside its place and then put there.
func toFile(path string, fill func(io.Writer) error) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".haloctl-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	b := bufio.NewWriter(f)
	if err = errors.Join(fill(b), b.Flush()); err == nil {
		n, err = f.Seek(0, io.SeekCurrent)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	return n, atomicfile.Rename(f.Name(), path)
}

func (a *app) telemetryImport() *cobra.Command {
	var format string
	c := a.call("import FILE", "have the gateway take in readings", nil, func(ctx context.Context, c *client.Client, args []string) (err error) {
		if format == "" {
			if format, err = formatOf(args[0]); err != nil {
				return err
			}
		} else if err := checkFormat(format); err != nil {
			return err
		}
		file, closeFile, err := a.input(args[0])
		if err != nil {
			return err
		}
		defer closeFile()
		sum, err := importParts(ctx, c, format, file)
		if err != nil {
			return err
		}
		return a.show(sum, func(w io.Writer) error { return importTable(sum).Write(w) })
	})
	c.ValidArgsFunction = nil // files
	c.Args = func(c *cobra.Command, args []string) error {
		if a.env.Console != "" {
			a.ran = true
			return &usageError{errors.New("a console has no files; do this from a laptop")}
		}
		return cobra.ExactArgs(1)(c, args)
	}
	c.Long = `Import gives the gateway readings from a file, such as telemetry export has
written: each of them once, so that a file may be imported again, whole, when it
was interrupted. They may be of a gateway before this one. Nodes are those that
this gateway has admitted. - is standard input, for which --format is needed.`
	c.Flags().StringVar(&format, "format", "", "`format`: csv, ndjson, prometheus or openmetrics (default: by the file's name)")
	return c
}

func (a *app) input(name string) (r io.Reader, done func() error, err error) {
	switch {
	case name != "-":
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, err
		}
		return f, f.Close, nil
	case a.env.Stdin == nil:
		return nil, nil, &usageError{errors.New("-: there is no standard input")}
	}
	return a.env.Stdin, func() error { return nil }, nil
}

// Bounds of what is sent at once: a minute on the slowest link, so that little is sent
// again after a failure.
const (
	importPart = 1 << 20
	importLine = 64 << 10
)

// importParts sends a file in parts of whole lines; each of CSV has its first line.
func importParts(ctx context.Context, c *client.Client, format string, file io.Reader) (sum apitype.Import, err error) {
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, 0, importLine), importLine)
	var head, part bytes.Buffer
	line, first := 0, 1
	send := func() error {
		did, err := c.Import(ctx, format, slices.Concat(head.Bytes(), part.Bytes()))
		if err != nil {
			if first > 1 {
				err = fmt.Errorf("in the part from line %d on, of which it says: %w", first, err)
			}
			return err
		}
		part.Reset()
		first = line + 1
		add(&sum, did)
		return nil
	}
	for lines.Scan() {
		line++
		to := &part
		if format == "csv" && line == 1 {
			to = &head
		}
		to.Write(lines.Bytes())
		to.WriteByte('\n')
		if part.Len() >= importPart-importLine {
			if err := send(); err != nil {
				return sum, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return sum, fmt.Errorf("line %d: %w", line+1, err)
	}
	if part.Len() == 0 && line > 0 && first > 1 {
		return sum, nil
	}
	return sum, send()
}

func add(sum *apitype.Import, did apitype.Import) {
	sum.Readings, sum.Stored, sum.Duplicate, sum.Summarised = sum.Readings+did.Readings, sum.Stored+did.Stored, sum.Duplicate+did.Duplicate, sum.Summarised+did.Summarised
	sum.Misdated, sum.Refused, sum.Crowded, sum.Unknown = sum.Misdated+did.Misdated, sum.Refused+did.Refused, sum.Crowded+did.Crowded, sum.Unknown+did.Unknown
	for _, n := range did.Nodes {
		if len(sum.Nodes) < 20 && !slices.Contains(sum.Nodes, n) {
			sum.Nodes = append(sum.Nodes, n)
		}
	}
}

func importTable(r apitype.Import) *table.Table {
	t := table.New()
	t.Row("Readings", fmt.Sprint(r.Readings))
	t.Row("Stored", fmt.Sprint(r.Stored))
	for _, left := range []struct {
		name, why string
		n         int
	}{
		{"Duplicate", "the gateway has a reading of that instant", r.Duplicate},
		{"Summarised", "of their time it keeps only minutes, or what is longer", r.Summarised},
		{"Misdated", "older than it keeps, or of the future", r.Misdated},
		{"Refused", "more metrics than a node may have", r.Refused},
		{"Crowded", "more within an hour than it keeps", r.Crowded},
		{"Unknown", "of nodes that it has not admitted: " + strings.Join(r.Nodes, " "), r.Unknown},
	} {
		if left.n > 0 {
			t.Row(left.name, table.Two(fmt.Sprintf("%d: %s", left.n, left.why), fmt.Sprint(left.n)))
		}
	}
	return t
}
