/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linked into a test build of oomslice-core with --wrap: once the core is armed, whoever calls the allocator or stdio,
 * its own code or the C library's, or opens what it must not, ends the program with status 99. May be linked together
 * with stuck.c, whose openat() it then stands in for.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern volatile bool oomslice_armed;
extern void oomslice_test_get_stuck(const char *path, int fd) __attribute__((weak));

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *old);
int __real_open(const char *path, int flags, ...);
int __real_openat(int directory, const char *path, int flags, ...);
FILE *__real_fopen(const char *path, const char *mode);
int __real_vfprintf(FILE *file, const char *format, va_list arguments);
int __real_vsnprintf(char *text, size_t size, const char *format, va_list arguments);
int __real_fputs(const char *text, FILE *file);
size_t __real_fwrite(const void *data, size_t size, size_t count, FILE *file);

/* What is opened after all, always relative to a descriptor; with the reason that there is. */
static const struct {
        const char *name;
        const char *why;
} known[] = {
        {".", "a plan is taken; or the watchdog's own list of what is below its victim"},
        {"cgroup.kill", "a plan is taken, or a unit younger than it is found at a decision"},
        {"cgroup.procs", "the same; and cgroups below a victim, after its kill"},
        {"cgroup.events", "the same"},
        {"cgroup.freeze", "the same"},
        {"memory.current", "the same"},
        {"memory.stat", "the same"},
        {"memory.swap.current", "the same"},
        {"memory.high", "the same"},
        {"memory.swap.max", "the same"},
        {"memory.reclaim", "the same"},
        {"memory.min", "a plan is taken: cgroups right below the root"},
        {"memory.pressure", "a plan is taken: triggers and figures of domains"},
        {"pressure/memory", "a plan is taken: triggers of the machine"},
};

static void end(const char *what, const char *which) {
        static const char text[] = " was used after the core was armed: ";

        if (!oomslice_armed)
                return;
        (void)!write(2, what, strlen(what));
        (void)!write(2, text, sizeof(text) - 1);
        (void)!write(2, which, strlen(which));
        (void)!write(2, "\n", 1);
        _exit(99);
}

/* "123/status", below the descriptor of /proc: sizes of processes, with KillScope=process. */
static bool is_status(const char *path) {
        size_t digits = strspn(path, "0123456789");

        return digits > 0 && strcmp(path + digits, "/status") == 0;
}

static bool is_known(int directory, const char *path, int flags) {
        if (directory == AT_FDCWD || path[0] == '/')
                return false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
                if (strcmp(path, known[i].name) == 0)
                        return true;
        /* Cgroups that are younger than the plan, at a decision, and those below a victim, after its kill. */
        return is_status(path) ||
               ((flags & O_DIRECTORY) && (flags & O_NOFOLLOW) && !strchr(path, '/') && path[0] != '.');
}

int __wrap_open(const char *path, int flags, ...) {
        va_list arguments;
        mode_t mode;

        end("open()", path);
        va_start(arguments, flags);
        mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
        va_end(arguments);
        return __real_open(path, flags, mode);
}

int __wrap_openat(int directory, const char *path, int flags, ...) {
        if (!is_known(directory, path, flags))
                end("openat()", path);
        if (oomslice_test_get_stuck)
                oomslice_test_get_stuck(path, -1);
        return __real_openat(directory, path, flags);
}

void *__wrap_malloc(size_t size) {
        end("the heap", "malloc");
        return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
        end("the heap", "calloc");
        return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size) {
        end("the heap", "realloc");
        return __real_realloc(old, size);
}

void __wrap_free(void *old) {
        end("the heap", "free");
        __real_free(old);
}

FILE *__wrap_fopen(const char *path, const char *mode) {
        end("stdio", path);
        return __real_fopen(path, mode);
}

int __wrap_vfprintf(FILE *file, const char *format, va_list arguments) {
        end("stdio", format);
        return __real_vfprintf(file, format, arguments);
}

int __wrap_vsnprintf(char *text, size_t size, const char *format, va_list arguments) {
        end("stdio", format);
        return __real_vsnprintf(text, size, format, arguments);
}

int __wrap_fputs(const char *text, FILE *file) {
        end("stdio", text);
        return __real_fputs(text, file);
}

size_t __wrap_fwrite(const void *data, size_t size, size_t count, FILE *file) {
        end("stdio", "fwrite");
        return __real_fwrite(data, size, count, file);
}

/* The rest of stdio comes down to one of two; what the compiler makes of printf() ("puts") too. */
int __wrap_printf(const char *format, ...) {
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = __wrap_vfprintf(stdout, format, arguments);
        va_end(arguments);
        return n;
}

int __wrap_fprintf(FILE *file, const char *format, ...) {
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = __wrap_vfprintf(file, format, arguments);
        va_end(arguments);
        return n;
}

int __wrap_snprintf(char *text, size_t size, const char *format, ...) {
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = __wrap_vsnprintf(text, size, format, arguments);
        va_end(arguments);
        return n;
}

int __wrap_puts(const char *text) {
        return __wrap_fputs(text, stdout);
}
