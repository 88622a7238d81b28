/* SPDX-License-Identifier: MIT */
/*
 * Formatted text into a buffer. Pure C; kernel/console.h prints the result.
 */
#ifndef KERNEL_PRINT_H
#define KERNEL_PRINT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Formats into buf, at most size - 1 characters and a NUL; size is not 0.
 * Returns the number of characters written, without the NUL: a longer text is
 * cut.
 *
 *   %[flags][width][l]conversion
 *   flags        - left-justified, 0 filled with zeros, ' thousands with commas
 *   width        a number, or * for an int argument (not negative)
 *   conversions  d u x (int, or long after l), p, s (NULL is "(null)"), c, %
 *
 * Anything else after % is printed as it stands.
 */
size_t print_va(char *buf, size_t size, const char *format, va_list args);
__attribute__((format(printf, 3, 4))) size_t
print_to(char *buf, size_t size, const char *format, ...);

/*
 * value / 10^decimals with that many decimals (0 to 9), the thousands with
 * commas: 1234567, 3 is "1,234.567". Returns buf, for use as an argument; size
 * of 40 is always enough.
 */
char *print_fixed(char *buf, size_t size, int64_t value, unsigned int decimals);

#endif
