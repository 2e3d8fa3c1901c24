/* A disk that fails by order, for a process that loads this before libc (LD_PRELOAD).
 *
 * The file named by DISTMSG_SHIM holds the order: a letter for the calls that fail and the number
 * of the error, as "s5" (syncs end with EIO) or "w28" (writes end with ENOSPC). With "h" half of a
 * write is done before the rest fails. Only files with "distmsg.db" in their names are concerned, and
 * an empty or missing order means a disk that is well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The error with which a call on this file has to end; 0 for none. */
static int ordered(int fd, char call) {
    char link[64], path[4096] = "", order[16] = "";
    const char *file = getenv("DISTMSG_SHIM");
    int before = errno, from;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (!file || readlink(link, path, sizeof path - 1) < 0 || !strstr(path, "distmsg.db")) {
        errno = before;
        return 0;
    }
    from = open(file, O_RDONLY | O_CLOEXEC);
    if (from >= 0) {
        ssize_t got = read(from, order, sizeof order - 1);
        (void)got;
        close(from);
    }
    errno = before;
    return order[0] == call ? atoi(order + 1) : 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(fd, call)                      \
    do {                                    \
        int error = ordered(fd, call);      \
        if (error) {                        \
            errno = error;                  \
            return -1;                      \
        }                                   \
    } while (0)

/* After half of a write the caller tries the rest, and that fails. */
static int halves;
#define WRITE(fd, count, half_written)          \
    do {                                        \
        FAIL(fd, 'w');                          \
        if (ordered(fd, 'h')) {                 \
            if ((halves ^= 1) && (count) > 1) { \
                size_t half = (count) / 2;      \
                return half_written;            \
            }                                   \
            FAIL(fd, 'h');                      \
        }                                       \
    } while (0)

ssize_t write(int fd, const void *from, size_t count) {
    WRITE(fd, count, REAL(write)(fd, from, half));
    return REAL(write)(fd, from, count);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    WRITE(fd, count, REAL(pwrite)(fd, from, half, at));
    return REAL(pwrite)(fd, from, count, at);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    WRITE(fd, count, REAL(pwrite64)(fd, from, half, at));
    return REAL(pwrite64)(fd, from, count, at);
}

int fsync(int fd) {
    FAIL(fd, 's');
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    FAIL(fd, 's');
    return REAL(fdatasync)(fd);
}
