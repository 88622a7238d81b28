// SPDX-License-Identifier: MIT
/*
 * The fuzzer's target: reads its input as operations on the timer wheel and does
 * them to the wheel and to the model of tests/unit/wheel_model.h.
 *
 * make fuzz builds it with libFuzzer; tests/unit/test_fuzz.c replays the corpus
 * without. An operation is two bytes and, where it needs a time, a time: one byte
 * with a shift and a sign, one to three bytes of number.
 */
#include <stdio.h>
#include <stdlib.h>

#define MODEL_FAIL(text)                              \
	do {                                          \
		fprintf(stderr, "wheel: %s\n", text); \
		abort();                              \
	} while (0)

#include "tests/unit/wheel_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *input, *input_end;

static uint8_t byte(void)
{
	return input < input_end ? *input++ : 0;
}

/* A time near `from`, or any distance away, or exactly that of another timer. */
static uint64_t time_from(uint64_t from)
{
	uint8_t how = byte();
	uint64_t number = byte();

	if (how & 0x80)
		number |= (uint64_t)byte() << 8;
	number <<= how & 0x3f;
	if (how & 0x40)
		return number < from ? from - number : 0;
	return from + number < from ? UINT64_MAX : from + number;
}

static struct model *pick(void)
{
	return &models[byte() % timers];
}

static void in_turn(struct model *m);

static void operate(uint8_t what)
{
	struct model *m = pick();

	switch (what % 8) {
	case 0:
	case 1:
		start_range(m, time_from(now), 0);
		break;
	case 2:
		start_range(m, time_from(now), time_from(0));
		break;
	case 3:
		start_range(m, pick()->latest, 0);
		break;
	case 4:
		cancel(m);
		break;
	case 5: /* a flock, in order */
		for (unsigned int i = byte() % 64; i; i--, m++) {
			m = m < models + timers ? m : models;
			start_range(m, time_from(now), 0);
		}
		break;
	case 6:
		if (model_first())
			now = model_first()->latest > now ? model_first()->latest : now;
		in_callback = byte() & 1 ? in_turn : NULL;
		expire();
		break;
	default:
		now = time_from(now) > now ? time_from(now) : now;
		in_callback = NULL;
		expire();
	}
}

/* A callback does one thing that is not an expiry. */
static void in_turn(struct model *m)
{
	uint8_t what = byte();

	if (what & 0x80)
		start_range(m, time_from(now < UINT64_MAX ? now + 1 : now), 0);
	else if (what & 0x40)
		cancel(pick());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = data;
	input_end = data + size;
	model_begin(MODEL_TIMERS, time_from(0));
	timers = 1 + byte() % 128;
	while (input < input_end) {
		operate(byte());
		check();
		check_event();
	}
	return 0;
}
