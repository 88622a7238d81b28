/* SPDX-License-Identifier: MIT */
/* What cmocka wants to be included before it, and it. */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* A test whose name in the report is a sentence. */
#define CHECK_THAT(function, sentence)               \
	{                                            \
		sentence, function, NULL, NULL, NULL \
	}

#endif
