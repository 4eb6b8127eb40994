package testvm

import (
	"fmt"
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
