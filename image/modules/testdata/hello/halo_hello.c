// SPDX-License-Identifier: GPL-2.0
/* The smallest module: what halo-image modules is tested with. */
#include <linux/module.h>

static int greetings = 1;
module_param(greetings, int, 0444);

int halo_hello_count(void)
{
	return greetings;
}
EXPORT_SYMBOL_GPL(halo_hello_count);

static int __init hello_init(void)
{
	pr_info("halo_hello: %d from %s\n", greetings, __FILE__);
	return 0;
}

static void __exit hello_exit(void)
{
}

module_init(hello_init);
module_exit(hello_exit);
MODULE_DESCRIPTION("Test of modules from outside");
MODULE_LICENSE("GPL");
