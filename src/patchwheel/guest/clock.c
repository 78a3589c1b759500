/* Preloaded into the steps of a rebuild: the date is 400 days on. Durations, and the dates of files, stay true.
   libfaketime, the known library for this, shifts the monotonic clock too, which Python's locks then wait for, and
   does not survive its own start in nvcc. */

#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SHIFT (400L * 24 * 60 * 60)

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += SHIFT;
    return failed;
}

int gettimeofday(void *restrict now, void *restrict zone)
{
    int failed = (int)syscall(SYS_gettimeofday, now, zone);
    if (!failed && now)
        *(time_t *)now += SHIFT; /* the first member of struct timeval */
    return failed;
}

time_t time(time_t *now)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (now)
        *now = at.tv_sec;
    return at.tv_sec;
}
