// SPDX-License-Identifier: MIT
/*
 * build/storm-args, a hosted program: takes storm options as arguments and says
 * whether the guest would take them. Status 0 with the runs that they ask for,
 * one "workload/mode" a line in their order, or 2 with the guest's own error
 * line. It is made from the guest's own parser, so both always agree.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/storm/options.h"

static void print_runs(const struct storm_options *o)
{
	for (uint64_t n = 0; n < o->repeat; n++)
		for (unsigned int w = 0; w < STORM_WORKLOADS; w++)
			for (unsigned int m = 0; m < STORM_MODES; m++)
				if (o->workloads >> w & 1 && o->modes >> m & 1)
					printf("%s/%s\n",
					       storm_workload_names[w],
					       storm_mode_names[m]);
}

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
	print_runs(&options);
	return 0;
}
