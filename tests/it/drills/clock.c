/* The wall clock as a test wants it: CLOCK_REALTIME and what stands on it, moved by the seconds in a file. Loaded by
   LD_PRELOAD; the monotone clocks are left alone, as they are when an operator or a time server sets the clock. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void)
{
    static int file = -1;
    char text[32];
    if (file < 0) {
        const char *path = getenv("CLOCK_OFFSET_FILE");
        file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    }
    long count = file < 0 ? -1 : pread(file, text, sizeof text - 1, 0);
    if (count <= 0)
        return 0;
    text[count] = 0;
    return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    long result = syscall(SYS_clock_gettime, id, at);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        at->tv_sec += offset();
    return (int)result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
