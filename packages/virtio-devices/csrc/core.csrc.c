#include "core.h"
#include "net.h"
