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
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/hal/card"
	"halo.internal/identity"
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
		Log:      log,
	}, nil
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
