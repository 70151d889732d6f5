#include "core.h"

/* One argument, and no tuple for it: of a call for few addresses the crossing is the larger part.
 * SAFETY: the caller has seen to it that v->map is the map of the moment, and keeps that as long as the call lasts. */
static int mem_load_relaxed(struct vmm_vector *v)
{
    return vmm_mem_load_vector(v->map, v, VMM_ORDER_RELAXED, 0);
}

static int mem_store_relaxed(struct vmm_vector *v)
{
    return vmm_mem_store_vector(v->map, v, VMM_ORDER_RELAXED, 0);
}
