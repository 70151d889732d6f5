#include "core.h"

#include <stdbool.h>

/* One argument, and no tuple for it: of a call for few addresses the crossing is the larger part. For the same reason
 * the interpreter's lock is kept, whose release costs as much as forty accesses; so it may not take long: 1 to 7 us. */
enum { SHORT_VECTOR = 1024 };

static bool is_short(struct vmm_vector *v)
{
    v->done = 0;
    return v->count <= SHORT_VECTOR;
}

/* Whether all accesses are made; if not, `done` of them.
 * SAFETY: the caller keeps both that the pair names as long as the call lasts. */
static bool mem_load_relaxed(const struct vmm_vector_call *call)
{
    return is_short(call->vector) && vmm_mem_load_vector(call->map, call->vector, VMM_ORDER_RELAXED, 0) == 0;
}

static bool mem_store_relaxed(const struct vmm_vector_call *call)
{
    return is_short(call->vector) && vmm_mem_store_vector(call->map, call->vector, VMM_ORDER_RELAXED, 0) == 0;
}
