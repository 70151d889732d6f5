/* PR_SCHED_CORE for kernels without it, to be preloaded: cookies of threads, checked and kept as
 * Documentation/admin-guide/hw-vuln/core-scheduling.rst of the kernel says. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	long tid;
	uint64_t cookie;
} threads[64];
static uint64_t created;

static uint64_t *cookie_of(long tid)
{
	int i = 0;
	while (i < 63 && threads[i].tid && threads[i].tid != tid)
		i++;
	threads[i].tid = tid;
	return &threads[i].cookie;
}

static int core(unsigned long command, long tid, unsigned long scope, uint64_t *out)
{
	long self = syscall(SYS_gettid);
	uint64_t *cookie = cookie_of(tid ? tid : self);
	if (scope || (command != 0 && out) || (command == 0 && (!out || (uintptr_t)out % 8)))
		return EINVAL;
	if (command == 0)
		*out = *cookie;
	else if (command == 1)
		*cookie = ++created;
	else if (command == 3)
		*cookie_of(self) = *cookie;
	else
		return EINVAL;
	return 0;
}

int prctl(int option, ...)
{
	va_list list;
	va_start(list, option);
	unsigned long a = va_arg(list, unsigned long), b = va_arg(list, unsigned long);
	unsigned long c = va_arg(list, unsigned long), d = va_arg(list, unsigned long);
	va_end(list);
	if (option != 62)
		return (int)syscall(SYS_prctl, option, a, b, c, d);
	pthread_mutex_lock(&lock);
	errno = core(a, (long)(int)b, c, (uint64_t *)d);
	pthread_mutex_unlock(&lock);
	return errno ? -1 : 0;
}
