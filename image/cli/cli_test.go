package cli

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"halo-image": func() {
			if err := New().Execute(); err != nil {
				fmt.Fprintln(os.Stderr, "halo-image:", err)
				os.Exit(1)
			}
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			repository, err := os.Getwd()
			e.Setenv("REPO", repository+"/../..")
			return err
		},
	})
}
