/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * The kick signal, who a kick goes to, and whom a thread shares a core with; see core.h. */
#define _GNU_SOURCE
#include "core.h"
#include "signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* gettid is a system call, and one for each exit to Python is a tenth of what such an exit costs. The signal handler does
 * not look at this, and a forked child forgets it (kvmx_install_kick). */
static _Thread_local int32_t own_tid;

static void forget_tid(void)
{
	own_tid = 0;
}

int32_t kvmx_thread_id(void)
{
	if (!own_tid)
		own_tid = (int32_t)syscall(SYS_gettid);
	return own_tid;
}

static void kick_arrived(int signo)
{
	/* Its only work is to make KVM_RUN return EINTR. Nothing here may touch thread-local storage:
	 * that of a loaded extension may be allocated on first use. */
	(void)signo;
}

int kvmx_install_kick(void)
{
	struct sigaction now, ours = {.sa_handler = kick_arrived};
	if (sigaction(SIGRTMIN, NULL, &now) < 0)
		return -errno;
	if (now.sa_handler == kick_arrived)
		return 0;
	if (now.sa_handler != SIG_DFL)
		return -EEXIST;
	/* Here, because it comes before the first vCPU of a process and only once; a child inherits it with the handler. */
	int err = pthread_atfork(NULL, NULL, forget_tid);
	if (err)
		return -err;
	sigemptyset(&ours.sa_mask);
	return sigaction(SIGRTMIN, &ours, NULL) < 0 ? -errno : 0;
}

int kvmx_block_signals(void)
{
	sigset_t set;
	sigfillset(&set);
	sigdelset(&set, SIGRTMIN);
	/* Faults of the thread itself; blocking them would only turn a crash report into a silent kill. */
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGFPE);
	sigdelset(&set, SIGILL);
	return -pthread_sigmask(SIG_SETMASK, &set, NULL);
}

/* Linux 5.14; Documentation/admin-guide/hw-vuln/core-scheduling.rst. Here for older headers. */
enum {SCHED_CORE = 62, CORE_GET = 0, CORE_CREATE = 1, CORE_SHARE_FROM = 3, SCOPE_THREAD = 0};

int kvmx_core_cookie(int tid, uint64_t *ret)
{
	/* SAFETY: the kernel writes 8 bytes to an address that is a multiple of 8, which that of a uint64_t is. */
	return prctl(SCHED_CORE, CORE_GET, tid, SCOPE_THREAD, ret) < 0 ? -errno : 0;
}

int kvmx_share_core(int tid)
{
	return prctl(SCHED_CORE, tid ? CORE_SHARE_FROM : CORE_CREATE, tid, SCOPE_THREAD, 0) < 0 ? -errno : 0;
}
