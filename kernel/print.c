// SPDX-License-Identifier: MIT
/*
 * A small formatter: what a kernel prints, no floating point.
 */
#include "kernel/print.h"

#include <stdbool.h>

#include "kernel/string.h"

#define NUMBER_SIZE 32 /* 2^64 in decimal with commas has 26 characters */

struct out {
	char *buf;
	size_t size, used;
};

struct spec {
	bool left, zero, thousands, is_long;
	size_t width;
};

static void put(struct out *o, char c)
{
	if (o->used + 1 < o->size)
		o->buf[o->used++] = c;
}

static void put_many(struct out *o, char c, size_t count)
{
	while (count-- > 0)
		put(o, c);
}

/* A text of `length` characters; the sign stays before any zeros. */
static void put_padded(struct out *o, const struct spec *spec,
		       const char *text, size_t length)
{
	size_t fill = spec->width > length ? spec->width - length : 0;

	if (!spec->left && !spec->zero)
		put_many(o, ' ', fill);
	if (spec->zero && length && *text == '-') {
		put(o, *text++);
		length--;
	}
	if (!spec->left && spec->zero)
		put_many(o, '0', fill);
	while (length-- > 0)
		put(o, *text++);
	if (spec->left)
		put_many(o, ' ', fill);
}

static void put_number(struct out *o, const struct spec *spec, uint64_t value,
		       unsigned int base, bool negative)
{
	char text[NUMBER_SIZE];
	size_t at = sizeof(text);
	unsigned int digits = 0;

	do {
		if (spec->thousands && digits && digits % 3 == 0)
			text[--at] = ',';
		text[--at] = "0123456789abcdef"[value % base];
		value /= base;
		digits++;
	} while (value);
	if (negative)
		text[--at] = '-';
	put_padded(o, spec, text + at, sizeof(text) - at);
}

static void put_signed(struct out *o, const struct spec *spec, int64_t value)
{
	uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;

	put_number(o, spec, magnitude, 10, value < 0);
}

/* Reads flags, width and l; returns where the conversion stands. */
static const char *parse_spec(const char *f, struct spec *spec, va_list *args)
{
	*spec = (struct spec){ 0 };
	for (;; f++) {
		if (*f == '-')
			spec->left = true;
		else if (*f == '0')
			spec->zero = true;
		else if (*f == '\'')
			spec->thousands = true;
		else
			break;
	}
	if (*f == '*') {
		spec->width = (size_t)va_arg(*args, int);
		f++;
	}
	for (; *f >= '0' && *f <= '9'; f++)
		spec->width = spec->width * 10 + (size_t)(*f - '0');
	if (*f == 'l') {
		spec->is_long = true;
		f++;
	}
	spec->zero &= !spec->left;
	return f;
}

static void put_text(struct out *o, struct spec *spec, const char *s)
{
	spec->zero = false;
	if (!s)
		s = "(null)";
	put_padded(o, spec, s, strlen(s));
}

static uint64_t next_unsigned(const struct spec *spec, va_list *args)
{
	return spec->is_long ? va_arg(*args, unsigned long)
			     : va_arg(*args, unsigned int);
}

static int64_t next_signed(const struct spec *spec, va_list *args)
{
	return spec->is_long ? va_arg(*args, long) : va_arg(*args, int);
}

/* One conversion with its argument. */
static void convert(struct out *o, char conversion, struct spec *spec,
		    va_list *args)
{
	char c;

	switch (conversion) {
	case 'd':
		put_signed(o, spec, next_signed(spec, args));
		break;
	case 'u':
		put_number(o, spec, next_unsigned(spec, args), 10, false);
		break;
	case 'x':
		put_number(o, spec, next_unsigned(spec, args), 16, false);
		break;
	case 'p':
		put(o, '0');
		put(o, 'x');
		put_number(o, spec, (uintptr_t)va_arg(*args, void *), 16, false);
		break;
	case 's':
		put_text(o, spec, va_arg(*args, const char *));
		break;
	case 'c':
		c = (char)va_arg(*args, int);
		spec->zero = false;
		put_padded(o, spec, &c, 1);
		break;
	default:
		put(o, '%');
		if (conversion && conversion != '%')
			put(o, conversion);
	}
}

size_t print_va(char *buf, size_t size, const char *format, va_list args)
{
	struct out o = { .buf = buf, .size = size };
	struct spec spec;
	va_list copy; /* so that helpers can take its address */

	va_copy(copy, args);
	for (const char *f = format; *f; f++) {
		if (*f != '%') {
			put(&o, *f);
			continue;
		}
		f = parse_spec(f + 1, &spec, &copy);
		convert(&o, *f, &spec, &copy);
		if (!*f)
			break;
	}
	va_end(copy);
	buf[o.used] = '\0';
	return o.used;
}

size_t print_to(char *buf, size_t size, const char *format, ...)
{
	va_list args;
	size_t used;

	va_start(args, format);
	used = print_va(buf, size, format, args);
	va_end(args);
	return used;
}

char *print_fixed(char *buf, size_t size, int64_t value, unsigned int decimals)
{
	uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
	uint64_t unit = 1;
	size_t used;

	for (unsigned int i = 0; i < decimals; i++)
		unit *= 10;
	used = print_to(buf, size, "%s%'lu", value < 0 ? "-" : "",
			(unsigned long)(magnitude / unit));
	if (decimals)
		print_to(buf + used, size - used, ".%0*lu", (int)decimals,
			 (unsigned long)(magnitude % unit));
	return buf;
}
