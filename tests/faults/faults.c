// Makes file operations of the real programs fail. Preloaded (ld.so(8), LD_PRELOAD) and told what to do by
// tests/src/faults.rs, whose documentation says what this does and what it does not. Linux, x86-64 and AArch64.
//
// Every operation comes to `call`, by one of three ways: through a function of libc that is replaced below, through
// libc's `syscall`, or by a system call instruction of the program's own (crates that go round libc), which a seccomp
// filter turns into a signal.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

// Kinds of operations; the same numbers as in faults.rs.
enum {
    OPEN = 1, CREATE = 2, WRITE = 4, SYNC = 8, RENAME = 16, REMOVE = 32, ATTRIBUTE = 64, READ = 128, STAT = 256,
    LOCK = 512
};

// What failing means; the same numbers as in faults.rs.
enum { FAILS = 0, SHORT = 1, LOSES = 2, LOSES_LATER = 3 };

// Bytes of a file that were written and not synced since, or that a failed sync has lost for good.
struct extent {
    uint64_t device, inode, start, end, lost;
};

// Shared by all processes that are watched, and by the test; the same layout as in faults.rs.
struct control {
    uint64_t kinds;      // which operations are counted
    uint64_t programs;   // and of which programs: 1 bigupd, 2 bigup-merger
    uint64_t at;         // the operation that fails; 0: none
    uint64_t period;     // after it every so many fail; 0: none
    uint64_t error;      // errno
    uint64_t effect;
    uint64_t count; // operations counted so far
    uint64_t hits;  // those of them that failed
    uint64_t begun; // the lock is ready
    char hit[256];  // the last one that failed, for messages
    char only[64];  // counted are those whose path ends so
    uint64_t used;  // extents in use
    struct extent extents[4096];
    pthread_mutex_t lock;
};

static struct control *control;
static const char *below; // only what is in this folder counts
static uint64_t program;
static long (*libc_syscall)(long, ...);

// --- which system call is what kind of operation on what

struct rule {
    long number;
    int kind;
    int fd;   // index of the argument that is the file, or the folder that `path` starts from
    int path; // index of the argument that is a path; -1: none
};

static const struct rule RULES[] = {
    {SYS_openat, OPEN, 0, 1},
    {SYS_mkdirat, CREATE, 0, 1},
    {SYS_linkat, CREATE, 2, 3},
    {SYS_symlinkat, CREATE, 1, 2},
    {SYS_write, WRITE, 0, -1},
    {SYS_writev, WRITE, 0, -1},
    {SYS_pwrite64, WRITE, 0, -1},
    {SYS_ftruncate, WRITE, 0, -1},
    {SYS_fallocate, WRITE, 0, -1},
    {SYS_copy_file_range, WRITE, 2, -1},
    {SYS_splice, WRITE, 2, -1},
    {SYS_ioctl, WRITE, 0, -1},
    {SYS_fsync, SYNC, 0, -1},
    {SYS_fdatasync, SYNC, 0, -1},
    {SYS_syncfs, SYNC, 0, -1},
    {SYS_sync_file_range, SYNC, 0, -1},
    {SYS_renameat, RENAME, 2, 3},
    {SYS_renameat2, RENAME, 2, 3},
    {SYS_unlinkat, REMOVE, 0, 1},
    {SYS_fsetxattr, ATTRIBUTE, 0, -1},
    {SYS_fchown, ATTRIBUTE, 0, -1},
    {SYS_fchmod, ATTRIBUTE, 0, -1},
    {SYS_fchmodat, ATTRIBUTE, 0, 1},
    {SYS_utimensat, ATTRIBUTE, 0, 1},
    {SYS_read, READ, 0, -1},
    {SYS_readv, READ, 0, -1},
    {SYS_pread64, READ, 0, -1},
    {SYS_sendfile, READ, 1, -1},
    {SYS_getdents64, READ, 0, -1},
    {SYS_fgetxattr, READ, 0, -1},
    {SYS_statx, STAT, 0, 1},
    {SYS_newfstatat, STAT, 0, 1},
    {SYS_fstat, STAT, 0, -1},
    {SYS_flock, LOCK, 0, -1},
};

static const struct rule *rule_of(long number, const long *a) {
    // Of the many requests only these change files.
    if (number == SYS_ioctl && a[1] != (long)FICLONERANGE && a[1] != (long)FICLONE) return NULL;
    for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++)
        if (RULES[i].number == number) return &RULES[i];
    return NULL;
}

static long raw(long number, const long *a) {
    return libc_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

// The path of an operation, whole. False: it has none, like that of a socket.
static bool path_of(const struct rule *rule, const long *a, char out[PATH_MAX]) {
    const char *path = rule->path < 0 ? NULL : (const char *)a[rule->path];
    // futimens has no path, and means its descriptor.
    if (rule->path >= 0 && path == NULL && rule->number != SYS_utimensat) return false;
    if (path != NULL && path[0] == '/') return snprintf(out, PATH_MAX, "%s", path) < PATH_MAX;
    char link[64];
    if (path != NULL && (int)a[rule->fd] == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", (int)a[rule->fd]);
    ssize_t len = libc_syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (len <= 0 || out[0] != '/') return false;
    out[len] = 0;
    if (path == NULL || path[0] == 0) return true;
    return snprintf(out + len, PATH_MAX - len, "/%s", path) < PATH_MAX - len;
}

static bool is_below(const char *path) {
    size_t len = strlen(below);
    return strncmp(path, below, len) == 0 && (path[len] == '/' || path[len] == 0);
}

// --- what was written and not synced

static bool identity(int fd, const char *path, struct stat *found) {
    // The structure is the kernel's own on these machines.
    if (path == NULL) return libc_syscall(SYS_fstat, fd, found) == 0;
    return libc_syscall(SYS_newfstatat, AT_FDCWD, path, found, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool is_of(const struct extent *extent, const struct stat *file) {
    return extent->device == file->st_dev && extent->inode == file->st_ino;
}

static void add(const struct stat *file, uint64_t start, uint64_t end, uint64_t lost) {
    if (start >= end) return;
    for (uint64_t i = 0; i < control->used; i++) {
        struct extent *extent = &control->extents[i];
        if (is_of(extent, file) && extent->lost == lost && start <= extent->end && extent->start <= end) {
            if (start < extent->start) extent->start = start;
            if (end > extent->end) extent->end = end;
            return;
        }
    }
    if (control->used == sizeof control->extents / sizeof *control->extents) {
        fprintf(stderr, "faults: more is unsynced than can be remembered\n");
        abort();
    }
    control->extents[control->used++] = (struct extent){file->st_dev, file->st_ino, start, end, lost};
}

// Forgets the bytes from `start` to `end` of a file; of those that are lost only if `lost`.
static void forget(const struct stat *file, uint64_t start, uint64_t end, bool lost) {
    for (uint64_t i = control->used; i-- > 0;) {
        struct extent extent = control->extents[i];
        if (!is_of(&extent, file) || (extent.lost && !lost) || extent.end <= start || end <= extent.start) continue;
        control->extents[i] = control->extents[--control->used];
        if (extent.start < start) add(file, extent.start, start, extent.lost);
        if (end < extent.end) add(file, end, extent.end, extent.lost);
    }
}

// A page that is written again will be written back again, whatever became of it before.
static void written(const struct stat *file, uint64_t start, uint64_t len) {
    forget(file, start, start + len, true);
    add(file, start, start + len, 0);
}

// An entry of the folder of `path` was made or replaced, which a sync of that folder makes durable.
static void entered(const char *path) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = 0;
    struct stat found;
    if (is_below(folder) && identity(-1, folder, &found)) add(&found, 0, 1, 0);
}

static void note_write(long number, const long *a) {
    struct stat file;
    bool is_copy = number == SYS_copy_file_range || number == SYS_splice;
    int fd = is_copy ? a[2] : a[0];
    if (!identity(fd, NULL, &file)) return;
    uint64_t here = libc_syscall(SYS_lseek, fd, 0L, SEEK_CUR);
    if (libc_syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) here = file.st_size;
    if (number == SYS_write) written(&file, here, a[2]);
    if (number == SYS_pwrite64) written(&file, a[3], a[2]);
    if (is_copy) written(&file, a[3] ? *(uint64_t *)a[3] : here, a[4]);
    if (number == SYS_ftruncate) forget(&file, a[1], UINT64_MAX, true);
    if (number == SYS_writev)
        for (long i = 0; i < a[2]; i++) {
            const struct iovec *piece = &((const struct iovec *)a[1])[i];
            written(&file, here, piece->iov_len);
            here += piece->iov_len;
        }
    if (number == SYS_ioctl && a[1] == (long)FICLONERANGE) {
        const struct file_clone_range *range = (const struct file_clone_range *)a[2];
        written(&file, range->dest_offset, range->src_length);
    }
}

// What a failed sync does: the kernel holds the pages as clean from then on although they did not reach the disk.
static void lose(int fd) {
    struct stat file;
    if (!identity(fd, NULL, &file) || !S_ISREG(file.st_mode)) return;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int writable = libc_syscall(SYS_openat, AT_FDCWD, link, O_WRONLY | O_CLOEXEC);
    static const char zeros[4096];
    for (uint64_t i = control->used; i-- > 0;) {
        struct extent extent = control->extents[i];
        if (!is_of(&extent, &file) || extent.lost) continue;
        control->extents[i] = control->extents[--control->used];
        if (control->effect == LOSES_LATER) {
            add(&file, extent.start, extent.end, 1);
            continue;
        }
        uint64_t end = extent.end < (uint64_t)file.st_size ? extent.end : (uint64_t)file.st_size;
        for (uint64_t at = extent.start; at < end; at += sizeof zeros)
            libc_syscall(SYS_pwrite64, writable, zeros, end - at < sizeof zeros ? end - at : sizeof zeros, at);
    }
    if (writable >= 0) libc_syscall(SYS_close, writable);
}

// Whether a file is opened that has no name.
static bool is_nameless(long number, const long *a) {
    return number == SYS_openat && (a[2] & O_TMPFILE) == O_TMPFILE;
}

// Does what was asked for, and notes what is unsynced by that.
static long perform(int kind, long number, const long *a, const char *path) {
    struct stat before;
    bool goes = (kind == REMOVE || kind == RENAME) && identity(-1, path, &before) && S_ISREG(before.st_mode) &&
                before.st_nlink == 1;
    // That of a file system is asked for what it counts, not for what it keeps.
    if (number == SYS_syncfs) return raw(number, a);
    // It is only asked whether writing back has failed; where it fails here, it has.
    if (number == SYS_sync_file_range) return raw(number, a);
    if (kind == SYNC) {
        // Not passed on: nothing here looks at the disk, and hundreds of uploads would wait for it.
        if (identity(a[0], NULL, &before)) forget(&before, 0, UINT64_MAX, S_ISDIR(before.st_mode));
        return 0;
    }
    if (kind == WRITE) note_write(number, a);
    long result = raw(number, a);
    if (result < 0) return result;
    if (goes) forget(&before, 0, UINT64_MAX, true);
    // Its inode may have been that of a file which nobody has unlinked, since it had no name.
    if (kind == CREATE && number == SYS_openat && identity((int)result, NULL, &before))
        forget(&before, 0, UINT64_MAX, true);
    if (kind == RENAME || (kind == CREATE && !is_nameless(number, a))) entered(path);
    return result;
}

// --- failing

static void enter(void) {
    // Somebody killed while holding it leaves nothing half done that matters.
    if (pthread_mutex_lock(&control->lock) == EOWNERDEAD) pthread_mutex_consistent(&control->lock);
}

// Counts an operation. True: it is to fail.
static bool strikes(int kind, long number, const char *path) {
    size_t len = strlen(path), tail = strnlen(control->only, sizeof control->only);
    bool is_meant = tail <= len && memcmp(path + len - tail, control->only, tail) == 0;
    if (!is_meant || !(control->kinds & kind) || !(control->programs & program)) return false;
    uint64_t count = ++control->count;
    if (control->at == 0 || count < control->at) return false;
    control->at = control->period ? count + control->period : 0;
    control->hits++;
    snprintf(control->hit, sizeof control->hit, "operation %lu, system call %ld of %s on %s", count, number,
             program_invocation_short_name, path + strlen(below));
    return true;
}

// The half of what was asked for. False: there is no half.
static bool halve(long number, long *a) {
    int len = number == SYS_copy_file_range || number == SYS_splice ? 4 : number == SYS_sendfile ? 3 : 2;
    bool has_half = number == SYS_write || number == SYS_pwrite64 || number == SYS_read || number == SYS_pread64 ||
                    number == SYS_copy_file_range || number == SYS_splice || number == SYS_writev ||
                    number == SYS_sendfile;
    if (!has_half || a[len] < 2) return false;
    a[len] /= 2;
    return true;
}

static long call(long number, long a0, long a1, long a2, long a3, long a4, long a5) {
    long a[6] = {a0, a1, a2, a3, a4, a5};
    const struct rule *rule = rule_of(number, a);
    char path[PATH_MAX];
    int before = errno;
    if (control == NULL || rule == NULL || !path_of(rule, a, path) || !is_below(path)) {
        errno = before;
        return raw(number, a);
    }
    int kind = rule->kind;
    struct stat found;
    if (kind == OPEN && (a[2] & O_CREAT) && !identity(-1, path, &found)) kind = CREATE;
    if (is_nameless(number, a)) kind = CREATE;
    errno = before;
    enter();
    bool fails = strikes(kind, number, path);
    if (fails && control->effect == SHORT && halve(number, a)) fails = false;
    long result = -1;
    if (fails) {
        if (control->effect >= LOSES && kind == SYNC) lose(a[0]);
        // A reflink writes its source back first (ioctl_ficlonerange(2), EIO).
        if (control->effect >= LOSES && number == SYS_ioctl) lose(((struct file_clone_range *)a[2])->src_fd);
        errno = (int)control->error;
    } else if (kind != LOCK) {
        result = perform(kind, number, a, path);
    }
    int error = errno;
    pthread_mutex_unlock(&control->lock);
    errno = error;
    // A lock is waited for, with ours given back.
    return !fails && kind == LOCK ? raw(number, a) : result;
}

// --- the functions of libc

#define REPLACE __attribute__((visibility("default")))
#define CALL(number, ...) CALL_(number, __VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L)
#define CALL_(number, a, b, c, d, e, f, ...) \
    call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static long mode_of(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? (long)va_arg(list, mode_t) : 0L; }
#define MODE(flags) ({ va_list list; va_start(list, flags); long mode = mode_of(flags, list); va_end(list); mode; })

REPLACE int open(const char *path, int flags, ...) { return CALL(SYS_openat, AT_FDCWD, path, flags, MODE(flags)); }
REPLACE int open64(const char *path, int flags, ...) { return CALL(SYS_openat, AT_FDCWD, path, flags, MODE(flags)); }
REPLACE int openat(int dir, const char *path, int flags, ...) {
    return CALL(SYS_openat, dir, path, flags, MODE(flags));
}
REPLACE int openat64(int dir, const char *path, int flags, ...) {
    return CALL(SYS_openat, dir, path, flags, MODE(flags));
}
REPLACE int mkdir(const char *path, mode_t mode) { return CALL(SYS_mkdirat, AT_FDCWD, path, mode); }
REPLACE int mkdirat(int dir, const char *path, mode_t mode) { return CALL(SYS_mkdirat, dir, path, mode); }
REPLACE int link(const char *from, const char *to) { return CALL(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to); }
REPLACE int linkat(int a, const char *from, int b, const char *to, int flags) {
    return CALL(SYS_linkat, a, from, b, to, flags);
}
REPLACE int symlink(const char *to, const char *path) { return CALL(SYS_symlinkat, to, AT_FDCWD, path); }
REPLACE int symlinkat(const char *to, int dir, const char *path) { return CALL(SYS_symlinkat, to, dir, path); }
REPLACE ssize_t write(int fd, const void *bytes, size_t len) { return CALL(SYS_write, fd, bytes, len); }
REPLACE ssize_t writev(int fd, const struct iovec *pieces, int count) { return CALL(SYS_writev, fd, pieces, count); }
REPLACE ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    return CALL(SYS_pwrite64, fd, bytes, len, at);
}
REPLACE ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) {
    return CALL(SYS_pwrite64, fd, bytes, len, at);
}
REPLACE int ftruncate(int fd, off_t len) { return CALL(SYS_ftruncate, fd, len); }
REPLACE int ftruncate64(int fd, off_t len) { return CALL(SYS_ftruncate, fd, len); }
REPLACE int fallocate(int fd, int mode, off_t at, off_t len) { return CALL(SYS_fallocate, fd, mode, at, len); }
REPLACE int fallocate64(int fd, int mode, off_t at, off_t len) { return CALL(SYS_fallocate, fd, mode, at, len); }
REPLACE int posix_fallocate(int fd, off_t at, off_t len) { return CALL(SYS_fallocate, fd, 0, at, len) ? errno : 0; }
REPLACE int posix_fallocate64(int fd, off_t at, off_t len) { return CALL(SYS_fallocate, fd, 0, at, len) ? errno : 0; }
REPLACE ssize_t copy_file_range(int from, off_t *a, int to, off_t *b, size_t len, unsigned flags) {
    return CALL(SYS_copy_file_range, from, a, to, b, len, flags);
}
REPLACE ssize_t splice(int from, off_t *a, int to, off_t *b, size_t len, unsigned flags) {
    return CALL(SYS_splice, from, a, to, b, len, flags);
}
REPLACE int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    long what = va_arg(list, long);
    va_end(list);
    return CALL(SYS_ioctl, fd, request, what);
}
REPLACE int fsync(int fd) { return CALL(SYS_fsync, fd); }
REPLACE int fdatasync(int fd) { return CALL(SYS_fdatasync, fd); }
REPLACE int syncfs(int fd) { return CALL(SYS_syncfs, fd); }
REPLACE int sync_file_range(int fd, off_t offset, off_t len, unsigned flags) {
    return CALL(SYS_sync_file_range, fd, offset, len, flags);
}
REPLACE int rename(const char *from, const char *to) { return CALL(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to); }
REPLACE int renameat(int a, const char *from, int b, const char *to) { return CALL(SYS_renameat2, a, from, b, to); }
REPLACE int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return CALL(SYS_renameat2, a, from, b, to, flags);
}
REPLACE int unlink(const char *path) { return CALL(SYS_unlinkat, AT_FDCWD, path, 0); }
REPLACE int rmdir(const char *path) { return CALL(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR); }
REPLACE int unlinkat(int dir, const char *path, int flags) { return CALL(SYS_unlinkat, dir, path, flags); }
REPLACE int fsetxattr(int fd, const char *name, const void *value, size_t len, int flags) {
    return CALL(SYS_fsetxattr, fd, name, value, len, flags);
}
REPLACE ssize_t fgetxattr(int fd, const char *name, void *value, size_t len) {
    return CALL(SYS_fgetxattr, fd, name, value, len);
}
REPLACE int fchown(int fd, uid_t owner, gid_t group) { return CALL(SYS_fchown, fd, owner, group); }
REPLACE int fchmod(int fd, mode_t mode) { return CALL(SYS_fchmod, fd, mode); }
REPLACE int chmod(const char *path, mode_t mode) { return CALL(SYS_fchmodat, AT_FDCWD, path, mode); }
REPLACE int fchmodat(int dir, const char *path, mode_t mode, int flags) {
    (void)flags; // The system call has none.
    return CALL(SYS_fchmodat, dir, path, mode);
}
REPLACE int utimensat(int dir, const char *path, const struct timespec times[2], int flags) {
    return CALL(SYS_utimensat, dir, path, times, flags);
}
REPLACE int futimens(int fd, const struct timespec times[2]) { return CALL(SYS_utimensat, fd, NULL, times, 0); }
REPLACE ssize_t sendfile(int to, int from, off_t *at, size_t len) { return CALL(SYS_sendfile, to, from, at, len); }
REPLACE ssize_t sendfile64(int to, int from, off_t *at, size_t len) { return CALL(SYS_sendfile, to, from, at, len); }
REPLACE ssize_t read(int fd, void *bytes, size_t len) { return CALL(SYS_read, fd, bytes, len); }
REPLACE ssize_t readv(int fd, const struct iovec *pieces, int count) { return CALL(SYS_readv, fd, pieces, count); }
REPLACE ssize_t pread(int fd, void *bytes, size_t len, off_t at) { return CALL(SYS_pread64, fd, bytes, len, at); }
REPLACE ssize_t pread64(int fd, void *bytes, size_t len, off_t at) { return CALL(SYS_pread64, fd, bytes, len, at); }
REPLACE int statx(int dir, const char *path, int flags, unsigned mask, struct statx *found) {
    return CALL(SYS_statx, dir, path, flags, mask, found);
}
REPLACE int stat(const char *path, struct stat *found) { return CALL(SYS_newfstatat, AT_FDCWD, path, found, 0); }
REPLACE int stat64(const char *path, struct stat64 *found) { return CALL(SYS_newfstatat, AT_FDCWD, path, found, 0); }
REPLACE int lstat(const char *path, struct stat *found) {
    return CALL(SYS_newfstatat, AT_FDCWD, path, found, AT_SYMLINK_NOFOLLOW);
}
REPLACE int lstat64(const char *path, struct stat64 *found) {
    return CALL(SYS_newfstatat, AT_FDCWD, path, found, AT_SYMLINK_NOFOLLOW);
}
REPLACE int fstat(int fd, struct stat *found) { return CALL(SYS_fstat, fd, found); }
REPLACE int fstat64(int fd, struct stat64 *found) { return CALL(SYS_fstat, fd, found); }
REPLACE int fstatat(int dir, const char *path, struct stat *found, int flags) {
    return CALL(SYS_newfstatat, dir, path, found, flags);
}
REPLACE int fstatat64(int dir, const char *path, struct stat64 *found, int flags) {
    return CALL(SYS_newfstatat, dir, path, found, flags);
}
REPLACE int flock(int fd, int operation) { return CALL(SYS_flock, fd, operation); }

REPLACE long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    return call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

// Folders are opened and read inside of libc, so these ask first and leave the work to it.

static bool may_read(int fd, const char *path, int kind) {
    char whole[PATH_MAX];
    long a[6] = {path ? AT_FDCWD : fd, (long)path};
    struct rule rule = {0, kind, 0, path ? 1 : -1};
    if (control == NULL || !path_of(&rule, a, whole) || !is_below(whole)) return true;
    enter();
    bool fails = control->effect != SHORT && strikes(kind, SYS_getdents64, whole);
    int error = (int)control->error;
    pthread_mutex_unlock(&control->lock);
    if (fails) errno = error;
    return !fails;
}

REPLACE DIR *opendir(const char *path) {
    DIR *(*next)(const char *) = dlsym(RTLD_NEXT, "opendir");
    return may_read(-1, path, OPEN) ? next(path) : NULL;
}

REPLACE struct dirent64 *readdir64(DIR *folder) {
    static struct dirent64 *(*next)(DIR *);
    if (next == NULL) next = dlsym(RTLD_NEXT, "readdir64");
    return may_read(dirfd(folder), NULL, READ) ? next(folder) : NULL;
}

REPLACE struct dirent *readdir(DIR *folder) {
    static struct dirent *(*next)(DIR *);
    if (next == NULL) next = dlsym(RTLD_NEXT, "readdir");
    return may_read(dirfd(folder), NULL, READ) ? next(folder) : NULL;
}

// --- system calls of the program's own

#if defined(__x86_64__)
#define RESULT(c) ((c)->uc_mcontext.gregs[REG_RAX])
#define ARGUMENT(c, i) ((c)->uc_mcontext.gregs[(int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9}[i]])
#elif defined(__aarch64__)
#define RESULT(c) ((c)->uc_mcontext.regs[0])
#define ARGUMENT(c, i) ((c)->uc_mcontext.regs[i])
#else
#error "where system calls keep their arguments is known for x86-64 and AArch64 only"
#endif

static void trapped(int signal, siginfo_t *info, void *context) {
    (void)signal;
    ucontext_t *c = context;
    int before = errno;
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = (long)ARGUMENT(c, i);
    if (rule_of(info->si_syscall, a) == NULL) {
        fprintf(stderr, "faults: system call %d, made without libc, is not known here\n", info->si_syscall);
        abort();
    }
    long result = call(info->si_syscall, a[0], a[1], a[2], a[3], a[4], a[5]);
    RESULT(c) = result < 0 ? -errno : result;
    errno = before;
}

static void must(bool done, const char *what) {
    if (done) return;
    fprintf(stderr, "faults: %s: %s\n", what, strerror(errno));
    abort();
}

// Traps all system calls made from code between two addresses (seccomp(2)). The two share their upper halves.
static void trap(uint64_t start, uint64_t end) {
    const uint32_t at = offsetof(struct seccomp_data, instruction_pointer);
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(start >> 32), 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)start, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (uint32_t)end, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog all = {sizeof filter / sizeof *filter, filter};
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) == 0, "filtering system calls");
}

// The first object is the program itself (dl_iterate_phdr(3)).
static int trap_program(struct dl_phdr_info *object, size_t size, void *data) {
    (void)size, (void)data;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        uint64_t start = object->dlpi_addr + part->p_vaddr, last = start + part->p_memsz - 1;
        for (; start >> 32 != last >> 32; start = ((start >> 32) + 1) << 32) trap(start, start | UINT32_MAX);
        trap(start, last);
    }
    return 1;
}

__attribute__((constructor)) static void begin(void) {
    libc_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    const char *path = getenv("BIGUP_FAULTS");
    below = getenv("BIGUP_FAULTS_BELOW");
    if (strcmp(program_invocation_short_name, "bigupd") == 0) program = 1;
    if (strcmp(program_invocation_short_name, "bigup-merger") == 0) program = 2;
    if (path == NULL || below == NULL || program == 0) return;
    int fd = libc_syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    must(fd >= 0, path);
    struct control *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(shared != MAP_FAILED, path);
    libc_syscall(SYS_close, fd);
    if (!shared->begun) {
        // The daemon, before it has started anybody else.
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&shared->lock, &attributes);
        shared->begun = 1;
    }
    control = shared;
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
    must(sigaction(SIGSYS, &action, NULL) == 0, "handling SIGSYS");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "forbidding new privileges");
    dl_iterate_phdr(trap_program, NULL);
}
