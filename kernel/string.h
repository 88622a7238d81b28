/* SPDX-License-Identifier: MIT */
/*
 * The C library functions that we use, with their standard meaning. The compiler
 * emits calls to the first four by itself.
 */
#ifndef KERNEL_STRING_H
#define KERNEL_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *s);
int strncmp(const char *a, const char *b, size_t size);
char *strchr(const char *s, int c);

#endif
