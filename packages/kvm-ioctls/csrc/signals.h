/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * Private to the core. */
#ifndef KVMX_SIGNALS_H
#define KVMX_SIGNALS_H

#include <stdint.h>

int32_t kvmx_thread_id(void); /* of the calling thread; asked of the kernel once a thread */

#endif
