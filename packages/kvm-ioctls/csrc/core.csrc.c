#define _GNU_SOURCE
#include "core.h"
