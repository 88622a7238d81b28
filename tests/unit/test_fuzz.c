// SPDX-License-Identifier: MIT
/* Replays the fuzzer's corpus: each file once did something new. */
#include "unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define CORPUS	 "tests/fuzz/corpus"
#define LONGEST	 65536
#define AT_LEAST 50 /* files, or something is missing */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void replay_file(const char *name)
{
	static uint8_t data[LONGEST];
	char path[512];
	size_t size;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", CORPUS, name);
	file = fopen(path, "rb");
	if (!file)
		fail_msg("cannot open %s", path);
	size = fread(data, 1, sizeof(data), file);
	fclose(file);
	printf("# %s\n", name);
	fflush(stdout); /* the last one named is the one that failed */
	LLVMFuzzerTestOneInput(data, size);
}

static void replay(void **state)
{
	DIR *directory = opendir(CORPUS);
	struct dirent *entry;
	int count = 0;

	(void)state;
	assert_non_null(directory);
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		replay_file(entry->d_name);
		count++;
	}
	closedir(directory);
	assert_true(count >= AT_LEAST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		{ "the fuzzer's corpus finds nothing wrong", replay, NULL, NULL, NULL },
	};

	return cmocka_run_group_tests_name("fuzz", tests, NULL, NULL);
}
