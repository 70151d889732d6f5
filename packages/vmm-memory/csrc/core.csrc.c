#include "core.h"

/* One argument, and no tuple for it: of a call for few addresses the crossing is the larger part.
 * SAFETY: the caller keeps both that the pair names as long as the call lasts. */
static int mem_load_relaxed(const struct vmm_vector_call *call)
{
    return vmm_mem_load_vector(call->map, call->vector, VMM_ORDER_RELAXED, 0);
}

static int mem_store_relaxed(const struct vmm_vector_call *call)
{
    return vmm_mem_store_vector(call->map, call->vector, VMM_ORDER_RELAXED, 0);
}
