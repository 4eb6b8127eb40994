package testvm

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// hostFlags are flags of tests that name files of the host, or concern its own
// test binary: true where there is no harm in leaving them out.
var hostFlags = map[string]bool{
	"-test.testlogfile": true, "-test.gocoverdir": true,
	"-test.coverprofile": false, "-test.cpuprofile": false, "-test.memprofile": false, "-test.blockprofile": false,
	"-test.mutexprofile": false, "-test.trace": false, "-test.outputdir": false, "-test.fuzz": false, "-test.fuzzcachedir": false,
}

// arguments returns the arguments for the tests inside, and their timeout, 0
// without one. They are those that go test makes: flags with their values
// behind an equals sign.
func arguments(args []string) (pass []string, timeout time.Duration, err error) {
	for i, a := range args {
		name, value, _ := strings.Cut(a, "=")
		if !strings.HasPrefix(a, "-") || name == "-args" || name == "--" {
			return append(pass, args[i:]...), timeout, nil
		}
		harmless, ofHost := hostFlags[name]
		if ofHost && harmless {
			continue
		}
		if ofHost {
			return nil, 0, fmt.Errorf("%s: not available in the test machine", name)
		}
		if name == "-test.timeout" {
			if timeout, err = time.ParseDuration(value); err != nil {
				return nil, 0, fmt.Errorf("%s: %w", name, err)
			}
		}
		pass = append(pass, a)
	}
	return pass, timeout, nil
}

// wanted returns args with the tests that need the machine chosen, unless they
// choose themselves: the others of the package run on the host, some fifty times as
// fast. dir is the package's folder.
func wanted(args []string, dir string) ([]string, error) {
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "-test.run=") }) {
		return args, nil
	}
	names, err := labTests(dir)
	if err != nil {
		return nil, err
	}
	return append([]string{"-test.run=^(" + strings.Join(names, "|") + ")$"}, args...), nil
}

// labTests returns the names of the tests in files that are built with the tag lab
// alone.
func labTests(dir string) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if !ofLab(f) {
			continue
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && strings.HasPrefix(d.Name.Name, "Test") && d.Name.Name != "TestMain" {
				names = append(names, d.Name.Name)
			}
		}
	}
	return names, nil
}

// ofLab tells whether f is left out of builds without the tag lab.
func ofLab(f *ast.File) bool {
	for _, group := range f.Comments {
		for _, c := range group.List {
			if c.Pos() > f.Package || !constraint.IsGoBuild(c.Text) {
				continue
			}
			if x, err := constraint.Parse(c.Text); err == nil && !x.Eval(func(tag string) bool { return tag != "lab" }) {
				return true
			}
		}
	}
	return false
}

// Limits of the whole machine.
const (
	noTimeout = 30 * time.Minute
	overTime  = 30 * time.Second // go test itself waits a minute
)

func limit(o Options, timeout time.Duration) time.Duration {
	switch {
	case o.Limit > 0:
		return o.Limit
	case timeout > 0:
		return timeout + overTime
	}
	return noTimeout
}
