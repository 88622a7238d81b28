// SPDX-License-Identifier: MIT
/*
 * Command line parsing. Each error is one line that names the word and says what
 * would have been valid.
 */
#include "kernel/cmdline.h"

#include <stdarg.h>
#include <stdbool.h>

#include "kernel/print.h"
#include "kernel/string.h"

/* A part of the line; not NUL-terminated. */
struct text {
	const char *start;
	size_t length;
};

static bool text_is(struct text t, const char *s)
{
	return strlen(s) == t.length && strncmp(t.start, s, t.length) == 0;
}

/* Adds to the error; it is cut where it does not fit. */
__attribute__((format(printf, 2, 3))) static void say(struct cmdline *c,
						      const char *format, ...)
{
	size_t used = strlen(c->error);
	va_list args;

	va_start(args, format);
	print_va(c->error + used, sizeof(c->error) - used, format, args);
	va_end(args);
}

/* Adds part of the user's text, what cannot be shown as '?', long ones cut. */
static void say_text(struct cmdline *c, struct text t)
{
	for (size_t i = 0; i < t.length && i < 60; i++)
		say(c, "%c", t.start[i] >= ' ' && t.start[i] <= '~' ? t.start[i] : '?');
	if (t.length > 60)
		say(c, "...");
}

static void say_valid_names(struct cmdline *c, const struct cmdline_option *o)
{
	say(c, " (valid: ");
	for (const char *const *n = o->names; *n; n++)
		say(c, "%s%s", n == o->names ? "" : ", ", *n);
	say(c, "%s)", o->kind == CMDLINE_LIST ? ", all" : "");
}

static void say_valid_range(struct cmdline *c, const struct cmdline_option *o)
{
	if (o->kind == CMDLINE_DURATION)
		say(c, " (valid: %'luus to %'lus)", o->min / 1000,
		    o->max / 1000000000);
	else
		say(c, " (valid: %'lu to %'lu)", o->min, o->max);
}

static int bad_name(struct cmdline *c, const struct cmdline_option *o,
		    struct text name, struct text word)
{
	say(c, "sloth: unknown %s '", o->what);
	say_text(c, name);
	say(c, "' in ");
	say_text(c, word);
	say_valid_names(c, o);
	return -1;
}

static int bad_value(struct cmdline *c, const struct cmdline_option *o,
		     struct text word, const char *what)
{
	say(c, "sloth: ");
	say_text(c, word);
	say(c, " is %s", what);
	if (o->names)
		say_valid_names(c, o);
	else if (o->kind != CMDLINE_LABEL)
		say_valid_range(c, o);
	else
		say(c, " (valid: 1 to %d of letters, digits, - . _ : +)",
		    CMDLINE_LABEL_SIZE - 1);
	return -1;
}

/* The index of a name, or -1. */
static int find_name(const struct cmdline_option *o, struct text name)
{
	for (int i = 0; o->names[i]; i++)
		if (text_is(name, o->names[i]))
			return i;
	return -1;
}

static unsigned int all_names(const struct cmdline_option *o)
{
	unsigned int bits = 0;

	for (int i = 0; o->names[i]; i++)
		bits |= 1u << i;
	return o->max ? (unsigned int)o->max : bits;
}

/* Splits at the first `separator`; the rest is empty where there is none. */
static struct text split(struct text *rest, char separator)
{
	struct text head = *rest;
	size_t i = 0;

	while (i < rest->length && rest->start[i] != separator)
		i++;
	head.length = i;
	i += i < rest->length;
	rest->start += i;
	rest->length -= i;
	return head;
}

static int read_list(struct cmdline *c, const struct cmdline_option *o,
		     struct text value, struct text word, unsigned int *bits)
{
	struct text rest = value;

	*bits = 0;
	if (value.length && value.start[value.length - 1] == ',')
		return bad_name(c, o, (struct text){ "", 0 }, word);
	while (rest.length) {
		struct text name = split(&rest, ',');
		int i = find_name(o, name);

		if (text_is(name, "all"))
			*bits |= all_names(o);
		else if (i >= 0)
			*bits |= 1u << i;
		else
			return bad_name(c, o, name, word);
	}
	return 0;
}

static int read_choice(struct cmdline *c, const struct cmdline_option *o,
		       struct text value, struct text word, unsigned int *choice)
{
	int i = find_name(o, value);

	if (i < 0)
		return bad_name(c, o, value, word);
	*choice = (unsigned int)i;
	return 0;
}

/* Nanoseconds in one of the unit that follows a duration, 0 if there is none. */
static uint64_t unit_of(struct text unit)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {
		{ "", 1000 }, { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", 1000000000 }
	};

	for (unsigned int i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (text_is(unit, units[i].name))
			return units[i].ns;
	return 0;
}

static int read_number(struct cmdline *c, const struct cmdline_option *o,
		       struct text value, struct text word, uint64_t *number)
{
	uint64_t n = 0, unit = 1;
	bool overflow = false;
	size_t i = 0;

	for (; i < value.length; i++) {
		unsigned int d = (unsigned int)value.start[i] - '0';

		if (d > 9)
			break;
		overflow |= __builtin_mul_overflow(n, 10, &n);
		overflow |= __builtin_add_overflow(n, d, &n);
	}
	if (o->kind == CMDLINE_DURATION)
		unit = unit_of((struct text){ value.start + i, value.length - i });
	else if (i < value.length)
		unit = 0;
	if (i == 0 || unit == 0)
		return bad_value(c, o, word,
				 o->kind == CMDLINE_DURATION ? "not a duration"
							     : "not a number");
	overflow |= __builtin_mul_overflow(n, unit, &n);
	if (overflow || n > o->max)
		return bad_value(c, o, word, "too large");
	if (n < o->min)
		return bad_value(c, o, word, "too small");
	*number = n;
	return 0;
}

static bool label_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || (c && strchr("-._:+", c));
}

static int read_label(struct cmdline *c, const struct cmdline_option *o,
		      struct text value, struct text word, char *label)
{
	bool good = value.length < CMDLINE_LABEL_SIZE;

	for (size_t i = 0; i < value.length; i++)
		good &= label_char(value.start[i]);
	if (!good)
		return bad_value(c, o, word, "not a label");
	memcpy(label, value.start, value.length);
	label[value.length] = '\0';
	return 0;
}

static int read_value(struct cmdline *c, const struct cmdline_option *o,
		      struct text value, struct text word)
{
	void *field = (char *)c->target + o->offset;

	if (!value.length)
		return bad_value(c, o, word, "empty");
	switch (o->kind) {
	case CMDLINE_LIST:
		return read_list(c, o, value, word, field);
	case CMDLINE_CHOICE:
		return read_choice(c, o, value, word, field);
	case CMDLINE_LABEL:
		return read_label(c, o, value, word, field);
	default:
		return read_number(c, o, value, word, field);
	}
}

static int bad_option(struct cmdline *c, const char *what, struct text name,
		      struct text word)
{
	say(c, "sloth: %s '", what);
	say_text(c, name);
	say(c, "' in ");
	say_text(c, word);
	say(c, " (valid: ");
	for (unsigned int i = 0; i < c->count; i++)
		say(c, "%s%s=", i ? ", " : "", c->options[i].name);
	say(c, ")");
	return -1;
}

int cmdline_word(struct cmdline *c, const char *word, size_t length)
{
	struct text all = { word, length }, value = all;
	struct text name = split(&value, '=');

	if (name.length == length)
		return bad_option(c, "expected name=value, found", all, all);
	for (unsigned int i = 0; i < c->count; i++) {
		if (!text_is(name, c->options[i].name))
			continue;
		if (c->seen >> i & 1)
			return bad_option(c, "option given twice:", name, all);
		c->seen |= 1ull << i;
		return read_value(c, &c->options[i], value, all);
	}
	return bad_option(c, "unknown option", name, all);
}

int cmdline_line(struct cmdline *c, const char *line)
{
	struct text rest = { line, strlen(line) };

	while (rest.length) {
		struct text word = split(&rest, ' ');

		if (word.length && cmdline_word(c, word.start, word.length) < 0)
			return -1;
	}
	return 0;
}

/* True if the first word has a slash before any '=': no option looks so. */
static bool looks_like_path(const char *line)
{
	for (; *line && *line != ' ' && *line != '='; line++)
		if (*line == '/')
			return true;
	return false;
}

const char *cmdline_skip_image(const char *line, const char *loader)
{
	if (!line)
		return "";
	if (looks_like_path(line) || (loader && !strncmp(loader, "qemu", 4)))
		while (*line && *line != ' ')
			line++;
	return line;
}
