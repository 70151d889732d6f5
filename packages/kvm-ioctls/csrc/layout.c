/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * What the compiler made of kvm_abi.h, for the tests of the Python codecs.
 */
#include "core.h"

#include <errno.h>
#include <stdlib.h>

struct layout { const char *strct, *field; uint32_t offset, size; };
#define LAYOUT_SIZE(s, n) {#s, "", 0, (uint32_t)sizeof(struct kx_##s)},
#define LAYOUT_FIELD(s, f, n) {#s, #f, (uint32_t)offsetof(struct kx_##s, f), (uint32_t)sizeof(((struct kx_##s *)0)->f)},
static const struct layout layouts[] = {KX_ALL(SIZES, LAYOUT_SIZE) KX_ALL(FIELDS, LAYOUT_FIELD)};

int kvmx_layout(uint32_t i, const char **strct, const char **field, uint32_t *offset, uint32_t *size)
{
	if (i >= sizeof layouts / sizeof *layouts)
		return -ENOENT;
	*strct = layouts[i].strct;
	*field = layouts[i].field;
	*offset = layouts[i].offset;
	*size = layouts[i].size;
	return 0;
}

int kvmx_selftest_overrun(void)
{
#ifdef VMM_SANITIZE
	volatile size_t n = 16;
	volatile uint8_t *p = malloc(n);
	if (!p)
		return -ENOMEM;
	p[n] = 1;
	free((void *)p);
	return 0;
#else
	return -ENOSYS;
#endif
}
