/* Preloaded into the gateway: its time of day lies off the machine's by what a shared file says. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef int (*Get)(clockid_t, struct timespec *);

static Get real;
static volatile const int64_t *seconds_off;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TEST_CLOCK_FILE");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    void *shared = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds_off, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (shared != MAP_FAILED)
        seconds_off = shared;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (real == NULL)
        real = (Get)dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (status == 0 && seconds_off != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *seconds_off;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec at;
    (void)zone;
    int status = clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return status;
}

time_t time(time_t *now)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (now != NULL)
        *now = at.tv_sec;
    return at.tv_sec;
}
