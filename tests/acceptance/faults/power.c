/* Preloaded into the gateway: writes down what it makes durable, and keeps what SQLite overwrites until that is.

A journal has a line for each event under TEST_POWER_FOLDER, written when the call has returned:
  made INODE NS PATH, linked NS PATH, renamed NS PATH TAB PATH, gone PATH   names
  synced INODE SIZE, folder NS PATH, all NS NS-SINCE-1970                   what is durable; begun at NS
Of databases and their write-ahead logs, whose bytes are written over, `undo.INODE` beside it keeps what was there.
A path that holds TEST_POWER_SWALLOWS is never made durable: the call returns success and does nothing. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))
#define MOST_FILES 4096
#define SYNC_US 2000 /* what a disk takes, which a tmpfs does not */

struct undo {
    int64_t offset, size_before, length;
};

static const char *folder, *swallowed, *home;
static size_t folder_length;
static int journal = -1;
static volatile char is_database[MOST_FILES];

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void)
{
    char path[PATH_MAX];
    folder = getenv("TEST_POWER_FOLDER");
    home = getenv("TEST_POWER_HOME");
    swallowed = getenv("TEST_POWER_SWALLOWS");
    if (folder == NULL || home == NULL)
        return;
    folder_length = strlen(folder);
    snprintf(path, sizeof path, "%s/journal", home);
    journal = REAL(open64)(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    syscall(SYS_clock_gettime, clock, &now); /* the other library preloaded here sets the time of day */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int is_ours(const char *path)
{
    return journal >= 0 && strncmp(path, folder, folder_length) == 0 && path[folder_length] == '/';
}

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    char line[2 * PATH_MAX + 128];
    int error = errno;
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    if (length < (int)sizeof line && write(journal, line, length) < 0)
        abort();
    errno = error;
}

static int path_of(int file, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = '\0';
    return length > 0 && (is_ours(path) || (journal >= 0 && strcmp(path, folder) == 0));
}

static int ends_with(const char *path, const char *end)
{
    size_t length = strlen(path), ending = strlen(end);
    return length >= ending && strcmp(path + length - ending, end) == 0;
}

static int opened(int file, const char *path, int flags, int was_there)
{
    if (file >= 0 && file < MOST_FILES)
        is_database[file] = is_ours(path) && (ends_with(path, ".db") || ends_with(path, ".db-wal"));
    if (file >= 0 && (flags & O_CREAT) && !was_there && is_ours(path)) {
        struct stat facts;
        if (fstat(file, &facts) == 0)
            note("made %ju %jd %s\n", (uintmax_t)facts.st_ino, (intmax_t)now_ns(CLOCK_MONOTONIC), path);
    }
    return file;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        int was_there = !(flags & O_CREAT) || !is_ours(path) || faccessat(AT_FDCWD, path, F_OK, 0) == 0;               \
        return opened(REAL(name)(path, flags, mode), path, flags, was_there);                                          \
    }

OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode)
{
    int status = REAL(mkdir)(path, mode);
    if (status == 0 && is_ours(path))
        note("linked %jd %s\n", (intmax_t)now_ns(CLOCK_MONOTONIC), path);
    return status;
}

int link(const char *old, const char *new)
{
    int status = REAL(link)(old, new);
    if (status == 0 && is_ours(new))
        note("linked %jd %s\n", (intmax_t)now_ns(CLOCK_MONOTONIC), new);
    return status;
}

int linkat(int old_folder, const char *old, int new_folder, const char *new, int flags)
{
    int status = REAL(linkat)(old_folder, old, new_folder, new, flags);
    if (status == 0 && is_ours(new))
        note("linked %jd %s\n", (intmax_t)now_ns(CLOCK_MONOTONIC), new);
    return status;
}

int rename(const char *old, const char *new)
{
    int status = REAL(rename)(old, new);
    if (status == 0 && is_ours(new))
        note("renamed %jd %s\t%s\n", (intmax_t)now_ns(CLOCK_MONOTONIC), old, new);
    return status;
}

int unlink(const char *path)
{
    int status = REAL(unlink)(path);
    if (status == 0 && is_ours(path))
        note("gone %s\n", path);
    return status;
}

int rmdir(const char *path)
{
    int status = REAL(rmdir)(path);
    if (status == 0 && is_ours(path))
        note("gone %s\n", path);
    return status;
}

/* Opened anew each time, so that the lock holds between threads too; closing it gives the lock back. */
static int locked_undo(ino_t inode)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/undo.%ju", home, (uintmax_t)inode);
    int undo = REAL(open64)(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (undo < 0 || flock(undo, LOCK_EX) != 0)
        abort();
    return undo;
}

static int keep_before(int file, off64_t offset, size_t length)
{
    struct stat facts;
    fstat(file, &facts);
    int undo = locked_undo(facts.st_ino);
    size_t held = offset >= facts.st_size ? 0 : (size_t)(facts.st_size - offset);
    struct undo head = {offset, facts.st_size, held < length ? held : length};
    char *record = malloc(sizeof head + head.length);
    memcpy(record, &head, sizeof head);
    ssize_t size = sizeof head + head.length;
    if (pread(file, record + sizeof head, head.length, offset) != head.length || write(undo, record, size) != size)
        abort();
    free(record);
    return undo;
}

static int is_kept(int file)
{
    return file >= 0 && file < MOST_FILES && is_database[file];
}

static void let_go(int undo)
{
    int error = errno;
    close(undo);
    errno = error;
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset)
{
    if (!is_kept(file))
        return REAL(pwrite64)(file, bytes, length, offset);
    int undo = keep_before(file, offset, length);
    ssize_t written = REAL(pwrite64)(file, bytes, length, offset);
    let_go(undo);
    return written;
}

int ftruncate64(int file, off64_t size)
{
    if (!is_kept(file))
        return REAL(ftruncate64)(file, size);
    int undo = keep_before(file, size, SIZE_MAX);
    int status = REAL(ftruncate64)(file, size);
    let_go(undo);
    return status;
}

static int sync_noted(int file, int (*sync_really)(int))
{
    char path[PATH_MAX];
    struct stat facts;
    if (journal < 0 || !path_of(file, path) || fstat(file, &facts) != 0)
        return sync_really(file);
    if (swallowed != NULL && strstr(path, swallowed) != NULL)
        return 0;
    intmax_t began = now_ns(CLOCK_MONOTONIC);
    int undo = is_kept(file) ? locked_undo(facts.st_ino) : -1;
    usleep(SYNC_US);
    int status = sync_really(file);
    if (status == 0 && undo >= 0)
        status = REAL(ftruncate64)(undo, 0);
    else if (status == 0 && S_ISDIR(facts.st_mode))
        note("folder %jd %s\n", began, path);
    else if (status == 0)
        note("synced %ju %jd\n", (uintmax_t)facts.st_ino, (intmax_t)facts.st_size);
    if (undo >= 0)
        let_go(undo);
    return status;
}

int fsync(int file)
{
    return sync_noted(file, REAL(fsync));
}

int fdatasync(int file)
{
    return sync_noted(file, REAL(fdatasync));
}

int syncfs(int file)
{
    char path[PATH_MAX];
    if (journal < 0 || !path_of(file, path))
        return REAL(syncfs)(file);
    if (swallowed != NULL && strstr(path, swallowed) != NULL)
        return 0;
    intmax_t began = now_ns(CLOCK_MONOTONIC), of_day = now_ns(CLOCK_REALTIME);
    usleep(SYNC_US);
    int status = REAL(syncfs)(file);
    if (status == 0)
        note("all %jd %jd\n", began, of_day);
    return status;
}
