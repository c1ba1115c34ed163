/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what may be a policy, and how it becomes a part of our programs: by libbpf's linker, for which the function
 * oomslice_policy() of the programs is weak and that of the policy is not. So it is there in every program that chooses,
 * whatever that is attached to; replacing a function of a loaded program is what the kernel does not allow in programs on
 * its tracepoints.
 *
 * A policy is one function with what it calls, its variables and its maps. A file with programs of its own is refused:
 * they would be loaded and attached with ours.
 */
#define _GNU_SOURCE
#include "policyfile.h"

#include <bpf/libbpf.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char oomslice_policy_function[] = "oomslice_policy";

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* linux/memfd.h, since 6.3 */
#endif

enum { FILE_MAX = 16 << 20 };

/* What our programs say (*.bpf.c); the linker wants all to say the same. */
static const char our_license[] = "Dual BSD/GPL";
/* license_is_gpl_compatible() in include/linux/license.h: with any other the kernel would take none of the programs. */
static const char *const licenses[] = {our_license,    "GPL",          "GPL v2", "GPL and additional rights",
                                       "Dual MIT/GPL", "Dual MPL/GPL", NULL};

/* Sections with data of a policy, by the beginnings of their names. All else means something to libbpf. */
static const char *const data_sections[] = {".maps", ".rodata", ".data", ".bss", "license", "version", NULL};

static bool is_data(const char *section) {
        for (const char *const *name = data_sections; *name; name++)
                if (strncmp(section, *name, strlen(*name)) == 0)
                        return true;
        return false;
}

static bool is_free_license(const char *license) {
        for (const char *const *one = licenses; *one; one++)
                if (strcmp(license, *one) == 0)
                        return true;
        return false;
}

/* The file as a table of sections. Everything in it was checked to be inside of the file. */
struct sections {
        const Elf64_Ehdr *header;
        const Elf64_Shdr *table;
        const char *names;
        size_t names_size;
        const Elf64_Shdr *license;
        size_t text;
        bool types;
};

static bool inside(const struct oomslice_policy_file *file, uint64_t offset, uint64_t size) {
        return offset <= file->size && size <= file->size - offset;
}

/* NULL: the name is nowhere, or has no end. */
static const char *name_at(const char *names, size_t size, uint32_t offset) {
        return offset < size && memchr(names + offset, '\0', size - offset) ? names + offset : NULL;
}

static bool find_table(const struct oomslice_policy_file *file, struct sections *sections) {
        const Elf64_Ehdr *header = (const void *)file->bytes;
        const Elf64_Shdr *names;

        if (file->size < sizeof(*header) || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
            header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_BPF ||
            header->e_type != ET_REL || header->e_shentsize != sizeof(Elf64_Shdr) ||
            header->e_shoff % sizeof(uint64_t) != 0 ||
            !inside(file, header->e_shoff, (uint64_t)header->e_shnum * sizeof(Elf64_Shdr)) ||
            header->e_shstrndx >= header->e_shnum)
                return false;
        sections->header = header;
        sections->table = (const void *)(file->bytes + header->e_shoff);
        names = &sections->table[header->e_shstrndx];
        if (!inside(file, names->sh_offset, names->sh_size))
                return false;
        sections->names = (const char *)file->bytes + names->sh_offset;
        sections->names_size = names->sh_size;
        return true;
}

/* Sets what is to be known of the sections, and refuses those that a policy cannot have. */
static bool find_sections(const struct oomslice_policy_file *file, struct sections *sections,
                          char why[static OOMSLICE_WHY_MAX]) {
        if (!find_table(file, sections))
                return oomslice_refuse(why,
                                       "this is no object file with BPF programs (clang -target bpf -c)");
        for (size_t i = 1; i < sections->header->e_shnum; i++) {
                const Elf64_Shdr *section = &sections->table[i];
                const char *name = name_at(sections->names, sections->names_size, section->sh_name);

                if (!name ||
                    (section->sh_type != SHT_NOBITS && !inside(file, section->sh_offset, section->sh_size)))
                        return oomslice_refuse(why, "the object file is damaged");
                if (strcmp(name, ".BTF") == 0)
                        sections->types = true;
                if (!(section->sh_flags & SHF_ALLOC) || section->sh_size == 0)
                        continue;
                if (strcmp(name, "license") == 0 && section->sh_type == SHT_PROGBITS)
                        sections->license = section;
                if (strcmp(name, ".text") == 0)
                        sections->text = i;
                else if (strncmp(name, "freplace/", strlen("freplace/")) == 0)
                        return oomslice_refuse(
                                why,
                                "its function is in the section %s and has to be in none: leave "
                                "SEC() out",
                                name);
                else if (section->sh_flags & SHF_EXECINSTR)
                        return oomslice_refuse(
                                why,
                                "it has a program of its own, in the section %s; a policy is a "
                                "function and what that calls",
                                name);
                else if (!is_data(name))
                        return oomslice_refuse(why, "it has a section %s, which a policy cannot have", name);
        }
        return true;
}

/* A function that the linker prefers to a weak one. */
static bool find_function(const struct oomslice_policy_file *file, const struct sections *sections,
                          char why[static OOMSLICE_WHY_MAX]) {
        for (size_t i = 1; i < sections->header->e_shnum; i++) {
                const Elf64_Shdr *section = &sections->table[i], *names;
                const Elf64_Sym *symbols = (const void *)(file->bytes + section->sh_offset);

                if (section->sh_type != SHT_SYMTAB)
                        continue;
                if (section->sh_link >= sections->header->e_shnum ||
                    section->sh_offset % sizeof(uint64_t) != 0 ||
                    sections->table[section->sh_link].sh_type != SHT_STRTAB)
                        return oomslice_refuse(why, "the object file is damaged");
                names = &sections->table[section->sh_link];
                for (size_t j = 0; j < section->sh_size / sizeof(*symbols); j++) {
                        const Elf64_Sym *symbol = &symbols[j];
                        const char *name = name_at((const char *)file->bytes + names->sh_offset,
                                                   names->sh_size, symbol->st_name);

                        if (!name || strcmp(name, oomslice_policy_function) != 0 || !sections->text ||
                            symbol->st_shndx != sections->text || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC)
                                continue;
                        if (ELF64_ST_BIND(symbol->st_info) == STB_GLOBAL)
                                return true;
                        return oomslice_refuse(why, "its function %s is static or weak, and must be neither",
                                               oomslice_policy_function);
                }
        }
        return oomslice_refuse(why, "it has no function %s", oomslice_policy_function);
}

static int new_memory_file(void) {
        int fd = memfd_create("oomslice-policy", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

        if (fd < 0 && errno == EINVAL)
                fd = memfd_create("oomslice-policy", MFD_CLOEXEC);
        return fd;
}

/* A file that is nowhere, with this in it; or -1 and errno. */
static int memory_file(const void *bytes, size_t size) {
        int fd = new_memory_file();

        for (size_t done = 0; fd >= 0 && done < size;) {
                ssize_t written = write(fd, (const char *)bytes + done, size - done);

                if (written < 0) {
                        close(fd);
                        return -1;
                }
                done += (size_t)written;
        }
        return fd;
}

static bool read_all(struct oomslice_policy_file *file, const char *path, char why[static OOMSLICE_WHY_MAX]) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0) {
                oomslice_refuse_step(why, "reading", path, errno);
                goto out;
        }
        if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
                oomslice_refuse(why, "it is no file, or too large to be a policy");
                goto out;
        }
        file->bytes = malloc((size_t)st.st_size + 1);
        if (!file->bytes) {
                oomslice_refuse_step(why, "reading", path, ENOMEM);
                goto out;
        }
        while (file->size < (size_t)st.st_size) {
                ssize_t got = read(fd, file->bytes + file->size, (size_t)st.st_size - file->size);

                if (got <= 0) {
                        oomslice_refuse_step(why, "reading", path, got < 0 ? errno : EIO);
                        goto out;
                }
                file->size += (size_t)got;
        }
        close(fd);
        return true;
out:
        if (fd >= 0)
                close(fd);
        return false;
}

/* The linker is told what our programs say: behind the end of its copy is room for it. */
static bool adjust_license(const struct oomslice_policy_file *file, const struct sections *sections,
                           char why[static OOMSLICE_WHY_MAX]) {
        Elf64_Shdr section;
        const char *said;

        if (!sections->license)
                return true;
        section = *sections->license;
        said = name_at((const char *)file->bytes + section.sh_offset, section.sh_size, 0);
        if (!said || !is_free_license(said))
                return oomslice_refuse(
                        why,
                        "its licence is \"%.40s\", with which the kernel takes no programs that do what "
                        "ours do; \"GPL\" and \"Dual BSD/GPL\" are among those that it takes",
                        said ? said : "");
        section.sh_offset = file->size;
        section.sh_size = sizeof(our_license);
        if (pwrite(file->object, our_license, sizeof(our_license), (off_t)file->size) !=
                    (ssize_t)sizeof(our_license) ||
            pwrite(file->object, &section, sizeof(section),
                   (const unsigned char *)sections->license - file->bytes) != (ssize_t)sizeof(section))
                return oomslice_refuse_step(why, "copying", file->name, errno);
        return true;
}

bool oomslice_policy_file_read(struct oomslice_policy_file *file, const char *path,
                               char why[static OOMSLICE_WHY_MAX]) {
        const char *slash = strrchr(path, '/');
        struct sections sections = {0};

        *file = (struct oomslice_policy_file){.object = -1};
        if (snprintf(file->name, sizeof(file->name), "%s", slash ? slash + 1 : path) >=
            (int)sizeof(file->name))
                return oomslice_refuse_step(why, "reading", path, ENAMETOOLONG);
        if (!read_all(file, path, why) || !find_sections(file, &sections, why) ||
            !find_function(file, &sections, why))
                goto bad;
        if (!sections.types) {
                oomslice_refuse(why, "it has no type information: compile it with -g");
                goto bad;
        }
        file->object = memory_file(file->bytes, file->size);
        if (file->object < 0) {
                oomslice_refuse_step(why, "copying", path, errno);
                goto bad;
        }
        if (adjust_license(file, &sections, why))
                return true;
bad:
        oomslice_policy_file_forget(file);
        return false;
}

void oomslice_policy_file_forget(struct oomslice_policy_file *file) {
        free(file->bytes);
        file->bytes = NULL;
        if (file->object >= 0)
                close(file->object);
        file->object = -1;
}

/* The linker of libbpf before 1.6 takes names only. */
static const char *path_of(int fd, char path[static 32]) {
        snprintf(path, 32, "/proc/self/fd/%d", fd);
        return path;
}

static int read_back(int fd, void **bytesp, size_t *sizep) {
        struct stat st;
        ssize_t got;

        if (fstat(fd, &st) < 0)
                return -errno;
        *bytesp = malloc((size_t)st.st_size);
        if (!*bytesp)
                return -ENOMEM;
        got = pread(fd, *bytesp, (size_t)st.st_size, 0);
        if (got == st.st_size) {
                *sizep = (size_t)got;
                return 0;
        }
        free(*bytesp);
        *bytesp = NULL;
        return got < 0 ? -errno : -EIO;
}

bool oomslice_policy_file_link(const struct oomslice_policy_file *file, const char *carrier,
                               const void *bytes, size_t size, void **linkedp, size_t *sizep,
                               char why[static OOMSLICE_WHY_MAX]) {
        int ours = memory_file(bytes, size), linked = new_memory_file(), r = -errno;
        struct bpf_linker *linker = NULL;
        char path[32];

        if (ours >= 0 && linked >= 0) {
                linker = bpf_linker__new(path_of(linked, path), NULL);
                r = linker ? 0 : -errno;
        }
        /* Ours first: what is weak there gives way. */
        if (r == 0)
                r = bpf_linker__add_file(linker, path_of(ours, path), NULL);
        if (r == 0)
                r = bpf_linker__add_file(linker, path_of(file->object, path), NULL);
        if (r == 0)
                r = bpf_linker__finalize(linker);
        bpf_linker__free(linker);
        if (r == 0)
                r = read_back(linked, linkedp, sizep);
        if (ours >= 0)
                close(ours);
        if (linked >= 0)
                close(linked);
        return r == 0 || oomslice_refuse_step(why, "it cannot be linked with", carrier, r);
}
