package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/hal/card"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/provision"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// waitForDisk is how long the disk may take to appear after the start.
const waitForDisk = 10 * time.Second

// Machine returns the configuration of the board that this process runs on.
func Machine(ctx context.Context, log *slog.Logger) (Config, error) {
	b, err := os.ReadFile(paths.ImageInfo)
	if err != nil {
		return Config{}, fmt.Errorf("role of the image: %w", err)
	}
	var image struct {
		Role model.Role `json:"role"`
	}
	if err := json.Unmarshal(b, &image); err != nil {
		return Config{}, fmt.Errorf("%s: expected {\"role\": …}: %w", paths.ImageInfo, err)
	}
	loadModules(log)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Config{}, fmt.Errorf("boot ID: %w", err)
	}
	return Config{
		Role:     image.Role,
		BootID:   strings.TrimSpace(string(boot)),
		Vault:    openVault(ctx, log),
		Boot:     provision.BootPartition{Dir: paths.Boot},
		Console:  func() (io.WriteCloser, error) { return provision.Consoles("/sys/class/tty/console/active", "/dev") },
		Clock:    clock.NewMachine(),
		Underlay: NewUnderlay,
		Restart:  func() error { return unix.Kill(1, unix.SIGTERM) }, // gokrazy ends all services and restarts
		RestartHung: func(ctx context.Context) error {
			return errors.Join(forceRestart("/proc/sys/kernel"), local.NewSupervisor(paths.GokrazySocket).Reboot(ctx))
		},
		Log: log,
	}, nil
}

// forceWait is after how long the kernel restarts by itself, which gives gokrazy time to
// end all processes and to unmount.
const forceWait = 5 * time.Minute

// forceRestart has the kernel, below its directory of sysctls, take tasks that hang in it
// for a panic, after which it restarts (panic= of its command line). Otherwise a restart
// would wait for ever where a device that is shut down waits for what hangs, with all
// processes ended and the hardware watchdog fed. What hangs longer already counts when the
// kernel looks next, which the longer time puts off to the second half of it.
func forceRestart(sysctl string) error {
	for _, s := range []struct{ name, value string }{
		{"hung_task_timeout_secs", strconv.Itoa(int(forceWait.Seconds()))}, {"hung_task_panic", "1"},
	} {
		if err := os.WriteFile(filepath.Join(sysctl, s.name), []byte(s.value), 0); err != nil {
			return fmt.Errorf("no restart by force: %w", err)
		}
	}
	return nil
}

// openVault opens the second copies on the disk that the machine runs from. A
// node without them works, with one copy of everything.
func openVault(ctx context.Context, log *slog.Logger) identity.Vault {
	ctx, cancel := context.WithTimeout(ctx, waitForDisk)
	defer cancel()
	report, _ := readBootReport(paths.BootReport) // names the disk, should there be a copy of it
	for {
		disk, err := card.OpenRoot(report.Disk)
		if err == nil {
			return card.NewVault(disk)
		}
		if errors.Is(err, fs.ErrNotExist) { // the driver may find it yet
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
				continue
			}
		}
		log.Warn("no vault: identity, bundle, membership and clock have one copy", "err", err)
		return nil
	}
}
