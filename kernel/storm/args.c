// SPDX-License-Identifier: MIT
/*
 * build/storm-args, a hosted program: takes storm options as arguments and says
 * whether the guest would take them. Status 0, or 2 with the guest's own error
 * line. It is made from the guest's own parser, so both always agree.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/storm/options.h"

int main(int argc, char **argv)
{
	static struct storm_options options;
	static struct cmdline c;

	storm_options_begin(&options, &c);
	for (int i = 1; i < argc; i++) {
		if (cmdline_word(&c, argv[i], strlen(argv[i])) < 0) {
			fprintf(stderr, "%s\n", c.error);
			return 2;
		}
	}
	if (storm_options_end(&options, &c) < 0) {
		fprintf(stderr, "%s\n", c.error);
		return 2;
	}
	return 0;
}
