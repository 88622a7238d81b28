/* SPDX-License-Identifier: MIT */
/*
 * The command line: words `name=value`, read into a struct as a table says.
 * Pure C, also part of the hosted build/storm-args.
 */
#ifndef KERNEL_CMDLINE_H
#define KERNEL_CMDLINE_H

#include <stddef.h>
#include <stdint.h>

enum cmdline_kind {
	CMDLINE_NUMBER,	  /* uint64_t, min to max */
	CMDLINE_DURATION, /* uint64_t in ns; ns, us, ms, s, or bare us */
	CMDLINE_CHOICE,	  /* unsigned int: index in names */
	CMDLINE_LIST,	  /* unsigned int: a bit for each of names; or "all" */
	CMDLINE_LABEL,	  /* char[CMDLINE_LABEL_SIZE]: letters, digits, -._:+ */
};

#define CMDLINE_LABEL_SIZE 64

struct cmdline_option {
	const char *name;
	enum cmdline_kind kind;
	size_t offset;		  /* of the field in the target */
	const char *what;	  /* CHOICE and LIST: one of them is called so */
	const char *const *names; /* of these, NULL at the end */
	uint64_t min, max;	  /* NUMBER and DURATION (ns); LIST: max is "all", 0: each */
};

/* One reading of a command line. Set options, count, target; the rest 0. */
struct cmdline {
	const struct cmdline_option *options;
	unsigned int count; /* at most 64 */
	void *target;
	uint64_t seen;	 /* a bit for each option that was given */
	char error[300]; /* one line without its end; empty: none */
};

/*
 * Reads one word of `length` characters. Returns 0, or -1 with c->error naming the
 * word and what would be valid; the target may be half changed then.
 */
int cmdline_word(struct cmdline *c, const char *word, size_t length);

/* Reads all words of a line, stopping at the first error. */
int cmdline_line(struct cmdline *c, const char *line);

/*
 * Skips what a loader puts before the arguments. QEMU's -kernel gives the image's
 * path as first word, GRUB 2 does not, others do: so the first word goes if the
 * loader is QEMU or if it has a slash before any '='. Both may be NULL.
 */
const char *cmdline_skip_image(const char *line, const char *loader);

#endif
