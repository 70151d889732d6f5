/* The first process of our test guests: static, no shell, every step checked.
 *
 * It tells the VMM's boot timer that userspace is reached, loads the modules that were packed
 * beside it, and does the jobs named on the kernel command line, in this order:
 *
 *   root=DEVICE       (from an initramfs) mount it as ext4, make it the root and run its /sbin/init,
 *                     which may be this program again: then that one does the jobs
 *   vmm.report=1      print what the kernel found: CPUs, memory, virtio devices
 *   vmm.nonce=TEXT    mount the first virtio disk (ext4, read-write), write TEXT to /vmm-nonce on
 *                     it, sync, unmount; prints "guest: wrote nonce TEXT"
 *   vmm.disktest=1    read the first virtio disk whole and print "guest: disk fnv HASH BYTES"
 *   vmm.challenge=1   print "guest: ready", read a line from the console, answer
 *                     "guest: answer HASH RELEASE", where HASH is FNV-1a 64 of the line
 *   vmm.irqs=1        print "guest: virtio interrupts N", counted by the kernel
 *   vmm.reg=ADDR      map the page at physical ADDR, print "guest: reg VALUE", write VALUE + 1 back
 *   vmm.end=WHAT      poweroff (default), reboot, panic, halt, or exec (run /init of the image)
 *
 * Anything that fails is printed as "guest: FAILED step: reason" and ends the machine by reboot,
 * so that it cannot be taken for success.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <sys/io.h>
#endif
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#define BOOT_TIMER_PORT 0x5F0
#define BOOT_TIMER_ADDRESS 0x9030000 /* where there are no ports */
#define USERSPACE_REACHED 0x7B
#define RAMFS_MAGIC 0x858458F6
#define TMPFS_MAGIC 0x01021994

static char cmdline[4096];

static void say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vdprintf(1, format, args);
	va_end(args);
}

static void finish(int command)
{
	sync();
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL); /* a root on disk is left clean */
	tcdrain(1);
	reboot(command);
	for (;;)
		pause();
}

static void fail(const char *step, const char *detail)
{
	say("guest: FAILED %s: %s: %s\n", step, detail, strerror(errno));
	finish(RB_AUTOBOOT);
}

/* The value of KEY= on the command line, or NULL. */
static const char *option(const char *key, char *value, size_t size)
{
	size_t length = strlen(key);
	for (const char *at = cmdline; (at = strstr(at, key)) != NULL; at += length)
		if ((at == cmdline || at[-1] == ' ') && at[length] == '=') {
			size_t n = strcspn(at + length + 1, " \n");
			if (n >= size)
				n = size - 1;
			memcpy(value, at + length + 1, n);
			value[n] = 0;
			return value;
		}
	return NULL;
}

/* The page of registers at a physical address, or NULL. */
static volatile void *map_page(uint64_t page)
{
	static const char node[] = "/vmm-mem"; /* /dev may not be mounted yet */
	mknod(node, S_IFCHR | 0600, makedev(1, 1));
	int fd = open(node, O_RDWR | O_SYNC | O_CLOEXEC);
	unlink(node);
	void *map = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)page);
	if (fd >= 0)
		close(fd);
	return map == MAP_FAILED ? NULL : map;
}

static void boot_timer(void)
{
#ifdef __x86_64__
	if (ioperm(BOOT_TIMER_PORT, 1, 1) == 0)
		outb(USERSPACE_REACHED, BOOT_TIMER_PORT);
#else
	volatile uint8_t *timer = map_page(BOOT_TIMER_ADDRESS);
	if (timer != NULL)
		*timer = USERSPACE_REACHED;
#endif
}

static void load_modules(const char *folder)
{
	struct dirent **names;
	int count = scandir(folder, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char path[512];
		if (names[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
			fail("module", path);
		close(fd);
	}
}

/* A module's probe may run after insmod returned. */
static int open_disk(int flags)
{
	for (int tries = 0; tries < 500; tries++) {
		int fd = open("/dev/vda", flags | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		usleep(10000);
	}
	fail("disk", "/dev/vda");
	return -1;
}

static int in_initramfs(void)
{
	struct statfs root;
	if (statfs("/", &root) != 0)
		fail("statfs", "/");
	unsigned long type = (unsigned long)root.f_type & 0xFFFFFFFF;
	return type == RAMFS_MAGIC || type == TMPFS_MAGIC;
}

static void switch_root(const char *device)
{
	close(open_disk(O_RDONLY));
	mkdir("/new", 0755);
	if (mount(device, "/new", "ext4", 0, NULL) != 0)
		fail("root", device);
	umount2("/sys", MNT_DETACH);
	umount2("/proc", MNT_DETACH);
	umount2("/dev", MNT_DETACH);
	if (chdir("/new") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
		fail("switch root", device);
	execl("/sbin/init", "/sbin/init", (char *)NULL);
	fail("exec", "/sbin/init");
}

static void write_nonce(const char *nonce)
{
	close(open_disk(O_RDONLY));
	mkdir("/disk", 0755);
	if (mount("/dev/vda", "/disk", "ext4", 0, NULL) != 0)
		fail("mount", "/dev/vda");
	int fd = open("/disk/vmm-nonce", O_WRONLY | O_CREAT | O_TRUNC, 0644);
	size_t length = strlen(nonce);
	if (fd < 0 || write(fd, nonce, length) != (ssize_t)length || fsync(fd) != 0 || close(fd) != 0)
		fail("write", "/disk/vmm-nonce");
	if (umount("/disk") != 0)
		fail("umount", "/disk");
	say("guest: wrote nonce %s\n", nonce);
}

static uint64_t fnv(uint64_t hash, const void *data, size_t size)
{
	for (const unsigned char *at = data; size--; at++)
		hash = (hash ^ *at) * UINT64_C(0x100000001B3);
	return hash;
}

#define FNV_START UINT64_C(0xCBF29CE484222325)

static void answer_challenge(void)
{
	char line[512];
	size_t used = 0;
	struct utsname name;
	struct termios raw;
	if (tcgetattr(0, &raw) == 0) {
		raw.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(0, TCSANOW, &raw);
	}
	say("guest: ready\n");
	while (used < sizeof line) {
		ssize_t n = read(0, line + used, 1);
		if (n != 1)
			fail("challenge", "read");
		if (line[used] == '\n')
			break;
		used++;
	}
	uname(&name);
	say("guest: answer %016" PRIx64 " %s\n", fnv(FNV_START, line, used), name.release);
}

static void report_file(const char *path)
{
	char text[512];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (n > 0) {
		text[n] = 0;
		text[strcspn(text, "\n")] = 0;
		say("guest: %s %s\n", path, text);
	}
}

static void report_folder(const char *folder, const char *const *leaves)
{
	struct dirent **names;
	int count = scandir(folder, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (names[i]->d_name[0] == '.')
			continue;
		for (const char *const *leaf = leaves; *leaf; leaf++) {
			char path[600];
			snprintf(path, sizeof path, "%s/%s/%s", folder, names[i]->d_name, *leaf);
			report_file(path);
		}
	}
}

static void report(void)
{
	static const char *const memmap[] = {"start", "end", "type", NULL};
	static const char *const virtio[] = {"device", "features", "status", NULL};
	static const char *const block[] = {"size", "ro", "serial", NULL};
	report_file("/sys/devices/system/cpu/online");
	report_file("/proc/version");
	report_file("/proc/meminfo");
	report_file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
	report_file("/sys/class/misc/hw_random/rng_current");
	report_file("/sys/kernel/reboot/type");
	report_folder("/sys/firmware/memmap", memmap);
	report_folder("/sys/bus/virtio/devices", virtio);
	report_folder("/sys/block", block);
}

static void disk_test(void)
{
	static unsigned char buffer[1 << 16];
	int fd = open_disk(O_RDONLY);
	uint64_t hash = FNV_START, total = 0;
	ssize_t n;
	while ((n = read(fd, buffer, sizeof buffer)) > 0) {
		hash = fnv(hash, buffer, (size_t)n);
		total += (uint64_t)n;
	}
	if (n < 0)
		fail("disktest", "read");
	say("guest: disk fnv %016" PRIx64 " %" PRIu64 "\n", hash, total);
	close(fd);
}

static void count_interrupts(void)
{
	static char text[1 << 16];
	size_t used = 0;
	ssize_t n;
	unsigned long long total = 0;
	int fd = open("/proc/interrupts", O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && used < sizeof text - 1 && (n = read(fd, text + used, sizeof text - 1 - used)) > 0)
		used += (size_t)n;
	text[used] = 0;
	for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
		char *at = strchr(line, ':'), *end;
		if (at == NULL || strstr(line, "virtio") == NULL)
			continue;
		for (at++;; at = end) { /* a column for each CPU, then the controller's name */
			unsigned long long count = strtoull(at, &end, 10);
			if (end == at || (*end != ' ' && *end != 0))
				break;
			total += count;
		}
	}
	say("guest: virtio interrupts %llu\n", total);
}

static void poke_register(const char *where)
{
	uint64_t address = strtoull(where, NULL, 0), page = address & ~UINT64_C(4095);
	volatile uint32_t *map = map_page(page);
	if (map == NULL)
		fail("reg", where);
	volatile uint32_t *reg = map + (address - page) / 4;
	uint32_t value = *reg;
	say("guest: reg %" PRIu32 "\n", value);
	*reg = value + 1;
}

static void console_on_serial(void)
{
	/* An initramfs without /dev/console leaves us without descriptors 0, 1, 2. */
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void end(const char *what)
{
	if (!strcmp(what, "reboot"))
		finish(RB_AUTOBOOT);
	if (!strcmp(what, "halt"))
		finish(RB_HALT_SYSTEM);
	if (!strcmp(what, "panic"))
		_exit(1); /* the kernel does not survive its first process */
	if (!strcmp(what, "exec")) {
		/* The next init expects to find nothing mounted. */
		umount2("/sys", MNT_DETACH);
		umount2("/proc", MNT_DETACH);
		umount2("/dev", MNT_DETACH);
		execl("/init", "/init", (char *)NULL);
		execl("/sbin/init", "/sbin/init", (char *)NULL);
		fail("exec", "/init");
	}
	say("guest: powering off\n");
	finish(RB_POWER_OFF);
}

int main(void)
{
	char value[512];
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, cmdline, sizeof cmdline - 1);
	cmdline[length > 0 ? length : 0] = 0;
	close(fd);
	/* With a root elsewhere, userspace is what begins there. */
	int switching = option("root", value, sizeof value) != NULL && in_initramfs();
	if (!switching)
		boot_timer();
	mkdir("/dev", 0755);
	mkdir("/sys", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	console_on_serial();
	if (!switching)
		say("guest: userspace reached\n");
	load_modules("/vmm-modules");
	if (switching)
		switch_root(value);
	if (option("vmm.report", value, sizeof value))
		report();
	if (option("vmm.nonce", value, sizeof value))
		write_nonce(value);
	if (option("vmm.disktest", value, sizeof value))
		disk_test();
	if (option("vmm.challenge", value, sizeof value))
		answer_challenge();
	if (option("vmm.irqs", value, sizeof value))
		count_interrupts();
	if (option("vmm.reg", value, sizeof value))
		poke_register(value);
	end(option("vmm.end", value, sizeof value) ? value : "poweroff");
}
