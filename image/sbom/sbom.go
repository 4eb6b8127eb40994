// Package sbom writes an image's bill of materials in CycloneDX's JSON form:
// every Go module inside every program, the kernel, and the firmware files, each
// with its version or hash. It is a function of the image: no serial number, no
// time but the build's.
package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"halo.internal/model/version"
)

// Component is one part of an image.
type Component struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []Hash `json:"hashes,omitempty"`
}

// Hash is a component's hash.
type Hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type document struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []Component `json:"components"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component Component `json:"component"`
}

// File returns the component of a firmware or data file.
func File(name string, b []byte) Component {
	h := sha256.Sum256(b)
	return Component{Type: "file", Name: name, Hashes: []Hash{{"SHA-256", hex.EncodeToString(h[:])}}}
}

// Debian returns the component of a Debian package; kind is CycloneDX's type of
// component.
func Debian(kind, name, version, sha256 string) Component {
	return Component{
		Type: kind, Name: name, Version: version, PURL: "pkg:deb/debian/" + escape(name) + "@" + escape(version),
		Hashes: []Hash{{"SHA-256", sha256}},
	}
}

// escape spells a plus sign as a package URL does.
func escape(s string) string { return strings.ReplaceAll(s, "+", "%2B") }

// Programs returns the components of the Go programs in the given folders: each
// program by its hash, and the modules they were built from.
func Programs(dirs ...string) ([]Component, error) {
	modules := map[string]Component{}
	var programs []Component
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("bill of materials: %w", err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("bill of materials: %w", err)
			}
			info, err := buildinfo.Read(bytes.NewReader(b))
			if err != nil {
				return nil, fmt.Errorf("bill of materials: %s: expected a Go program: %w", e.Name(), err)
			}
			program := File(e.Name(), b)
			program.Type, program.Version = "application", info.GoVersion
			programs = append(programs, program)
			for _, m := range info.Deps {
				if m.Replace != nil && m.Replace.Version == "" {
					continue // the repository itself: the document's subject
				}
				c := Component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + escape(m.Version)}
				// go.sum's h1 is a SHA-256 over the module's file list.
				if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(raw) == sha256.Size {
					c.Hashes = []Hash{{"SHA-256", hex.EncodeToString(raw)}}
				}
				modules[c.PURL] = c
			}
		}
	}
	for _, c := range modules {
		programs = append(programs, c)
	}
	return programs, nil
}

// Document returns the file for an image.
func Document(image string, stamp version.Info, components []Component) ([]byte, error) {
	components = slices.SortedFunc(slices.Values(components), func(a, b Component) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	b, err := json.MarshalIndent(document{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: metadata{
			Timestamp: stamp.Built.UTC().Format("2006-01-02T15:04:05Z"),
			Component: Component{Type: "firmware", Name: image, Version: stamp.Version},
		},
		Components: components,
	}, "", "  ")
	return append(b, '\n'), err
}
