package mesh

import (
	"log/slog"

	"halo.internal/hal/module"
)

// kernelModules are those that a device needs at each start, in the order of need. The
// kernel would ask for them itself, one by one: a program is started for each, and a
// change of the firewall begins anew whenever one was missing.
var kernelModules = []string{
	"nf_tables", "nft_chain_nat", "nft_ct", "nft_fib_inet", "nft_limit", "nft_connlimit", "nft_reject_inet", "nft_masq", "nft_meta_bridge",
	"bridge", "batman_adv", "ccm", "wireguard",
}

// loadModules loads them. What is not there, or fails, whoever needs it will say.
func loadModules(log *slog.Logger) {
	l, err := module.Own()
	if err != nil {
		log.Warn("modules are left for the kernel to ask for", "err", err)
		return
	}
	for _, name := range kernelModules {
		if err := l.Load(name); err != nil {
			log.Warn("a module is left for the kernel to ask for", "module", name, "err", err)
		}
	}
	log.Info("kernel modules", "loaded", l.Count())
}
