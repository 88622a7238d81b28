/* SPDX-License-Identifier: MIT */
/*
 * Times. Guest and host only ever compare deadlines with each other and with the
 * clock. So a time is its rank among the times that are somewhere in use, and `now`
 * the rank up to which they are past. squeeze() closes the gap that a time leaves when
 * its last user drops it; choose() takes one that is in use, or opens a gap anywhere.
 * Nothing is lost by that, and the clock never ends. 0 is no deadline, 1 the time that
 * is long past: a guest may ask for it, and KVM takes it where it cannot read.
 */
#define PENDING	  T[0]	/* area.pending, in memory */
#define BUFFERED  T[1]	/* the same, in the CPU's store buffer */
#define ARMED	  T[2]	/* area.armed */
#define REG	  T[3]	/* the guest's register: the deadline that it is at */
#define TIMER	  T[4]	/* lapic_timer.tscdeadline */
#define DELIVERED T[5]	/* lazy_tscd.delivered */
#define SAVED	  T[6]	/* what the VMM saved of IA32_TSC_DEADLINE */
#define TIMES	  7

byte T[TIMES];
byte now = 1, top = 1;	/* top: the latest time in use */
byte v, i;

inline squeeze()	/* in a d_step */
{
	v = 2;
	do
	:: v > top -> break
	:: else ->
		i = 0;
		do
		:: i < TIMES && T[i] != v -> i++
		:: else -> break
		od;
		if
		:: i < TIMES -> v++
		:: else ->
			NOTE("drop %d\n", v);
			i = 0;
			do
			:: i < TIMES -> T[i] = T[i] - (T[i] > v); i++
			:: else -> break
			od;
			now = now - (now >= v);
			top--
		fi
	od;
	v = 0; i = 0
}

inline open_gap(at)	/* in a d_step */
{
	NOTE("open %d\n", at);
	i = 0;
	do
	:: i < TIMES -> T[i] = T[i] + (T[i] >= at); i++
	:: else -> break
	od;
	i = 0;
	now = now + (now >= at);
	top++
}

inline choose(x)	/* in an atomic: x = any time */
{
	select(r : 1 .. top + 1);
	if
	:: r <= top -> x = r				/* one that is in use */
	:: r > 1 -> d_step { open_gap(r); x = r }	/* or between two */
	:: r == now + 1 -> d_step { open_gap(r); x = r; now++ }	/* the same, but past */
	fi;
	r = 0
}

active proctype clock()
{
end:	do
	:: d_step { now < top -> now++; NOTE("now #%d\n", now) }
	od
}
