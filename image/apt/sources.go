package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"halo.internal/image/tool"
)

// sources returns apt's source list and folder of more: those of the host, or
// copies of them below state in which Components stand beside main.
func (c *Client) sources(ctx context.Context, state string) (list, parts string, err error) {
	out, err := tool.Run(ctx, "apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.Trim(value, "'"); key {
		case "LIST":
			list = value
		case "PARTS":
			parts = value
		}
	}
	if len(c.Components) == 0 || list == "" || parts == "" {
		return list, parts, nil
	}
	to := filepath.Join(state, "sources")
	if err := os.MkdirAll(filepath.Join(to, "parts"), 0o755); err != nil {
		return "", "", err
	}
	copied := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(parts, "*"))
	if err != nil {
		return "", "", err
	}
	for _, from := range append(files, list) {
		name := filepath.Join(to, "parts", filepath.Base(from))
		if from == list {
			name = filepath.Join(to, "sources.list")
		}
		b, err := os.ReadFile(from)
		if errors.Is(err, fs.ErrNotExist) && from == list {
			b, err = nil, nil
		}
		if err != nil {
			return "", "", fmt.Errorf("apt sources: %w", err)
		}
		if err := os.WriteFile(name, extend(b, c.Components), 0o644); err != nil {
			return "", "", err
		}
		copied[name] = true
	}
	old, err := filepath.Glob(filepath.Join(to, "parts", "*"))
	for _, name := range old {
		if !copied[name] { // a source that the host no longer has
			err = errors.Join(err, os.Remove(name))
		}
	}
	return filepath.Join(to, "sources.list"), filepath.Join(to, "parts"), err
}

// extend adds components to each source that has main, in apt's form of a line
// ("deb [options] URI suite main …") or of stanzas ("Components: main …"). All
// else stays as it is, the keys that sign it above all.
func extend(b []byte, components []string) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(b) {
		text := string(bytes.TrimRight(line, "\n"))
		fields := strings.Fields(text)
		if len(fields) > 0 && (fields[0] == "deb" || strings.EqualFold(fields[0], "Components:")) && slices.Contains(fields[1:], "main") {
			for _, c := range components {
				if !slices.Contains(fields, c) {
					text += " " + c
				}
			}
		}
		out.WriteString(text + "\n")
	}
	return out.Bytes()
}
