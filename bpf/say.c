/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns how the commands of oomslice-bpf talk: the form of an error, the quotes of JSON. Decides nothing. */
#include "say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int oomslice_say_failed(const char *format, ...) {
        va_list arguments;

        fputs("oomslice-bpf: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
        return 1;
}

void oomslice_say_json(const char *text) {
        putchar('"');
        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;

                if (c == '"' || c == '\\')
                        printf("\\%c", c);
                else if (c < 0x20)
                        printf("\\u%04x", c);
                else
                        putchar(c);
        }
        putchar('"');
}

int oomslice_say_all(void) {
        if (fflush(stdout) != 0 || ferror(stdout))
                return oomslice_say_failed("the output could not be written: %s", strerror(errno));
        return 0;
}
