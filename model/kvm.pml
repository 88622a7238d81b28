/* SPDX-License-Identifier: MIT */
/*
 * KVM: arch/x86/kvm/lapic.c and x86.c with host-patches/. What one thread does between
 * two points at which another could tell the difference is one step.
 */
#define ACTIVE 1
#define TOKEN  4	/* what the last PARK wrote */
#define OLDER  6	/* what another one did */

/* The area is touched out of guest mode only, with the store buffer empty. */
#define READ_AREA  assert(!in_guest && !sb)
#define WRITE_AREA assert(!in_guest && !sb && mine)

inline start_timer()		/* restart_apic_timer() */
{
	fired = 0;
	running = TIMER > now;
	stale = 0;
	fast = 0;
	wiped = 0;
	if
	:: TIMER && TIMER <= now -> fired = 1; out = 1	/* apic_timer_expired() */
	:: else
	fi
}

inline set_deadline(t)		/* kvm_set_lapic_tscdeadline_msr(): UPDATE */
{
	if
	:: dl ->
		TIMER = t;
		start_timer();
		DELIVERED = (TIMER && BUG != DELIVERED_KEPT -> 0 : DELIVERED);
		moved = 0;
		req = req || live;
		NOTE("KVM: timer for #%d\n", TIMER)
	:: else
	fi
}

#define LAZY_ARMED (apic && dl && running -> TIMER : 0)	/* lazy_tscd_armed() */

inline sync()			/* kvm_lazy_tscd_sync() */
{
	if
	:: live && dl ->
		READ_AREA;
		p = (gone -> 1 : PENDING);
		p = (p == DELIVERED && !gone && p <= now -> 0 : p);
		if
		:: p == TIMER && !moved
		:: p == TIMER && BUG == SYNC_BLIND
		:: else -> set_deadline(p)
		fi;
		p = 0
	:: else
	fi
}

inline kick()			/* kvm_inject_apic_timer_irqs(), lazy_tscd_kick() */
{
	p = (gone -> 1 : PENDING);
	if
	:: live && dl && (!p || (p > now && (p > TIMER || BUG == KICK_NOW)) || (gone && BUG == UNREADABLE)) ->
		READ_AREA;
		/* What must hold, 3: nothing is woken for that, and it is not done twice. */
		assert(!woken || moved);
		assert(!calm || !kicked);
		kicked = calm;
		set_deadline((gone -> 0 : p));
		late = BUG == KICK_ORDER
	:: else ->
		/* kvm_wait_lapic_expire() waits out the timer advance, and no more. */
		now = (now < TIMER && !stale && !fast -> TIMER : now);
		DELIVERED = (live && dl && (p <= now || BUG == DELIVERED_EARLY) -> p : DELIVERED);
		req = req || (live && dl && BUG != KICK_KEEPS);
		irr = 1;
		TIMER = 0;
		fired = 0;
		fast = 0;
		NOTE("KVM: KICK, interrupt\n")
	fi;
	p = 0
}

inline publish()		/* kvm_lazy_tscd_publish(), for KVM_REQ_LAZY_TSCDEADLINE */
{
	req = 0;
	if
	:: live ->
		if
		:: moved && BUG != TSC_MOVED -> sync(); req = 0
		:: else
		fi;
		if
		:: gone -> retry = 1
		:: else -> WRITE_AREA; ARMED = LAZY_ARMED; NOTE("KVM: armed = #%d\n", ARMED)
		fi
	:: else
	fi
}

inline forget()			/* memset of lazy_tscd */
{
	msr = 0; host = 0; DELIVERED = 0; live = 0; moved = 0
}

inline write_area(word)		/* lazy_tscd_write(), of p and word */
{
	if
	:: gone
	:: else -> WRITE_AREA; ARMED = p; host_word = word; host = word
	fi;
	p = 0
}

inline park(token)		/* kvm_lazy_tscd_park() */
{
	if
	:: live ->
		if
		:: BUG != PARK_SYNC -> sync()
		:: else
		fi;
		p = (BUG == PARK_ARMED -> ARMED : 0);
		write_area(token);
		torn = gone && token;
		live = 0;
		NOTE("KVM: PARK, timer for #%d\n", TIMER)
	:: else
	fi
}

inline resume()			/* kvm_lazy_tscd_resume() */
{
	torn = 0;
	if
	:: host && BUG != RESUME_TOKEN &&
	   (gone -> host != ACTIVE || BUG == GONE_RUNNING : host_word != host) ->
		forget(); NOTE("KVM: RESUME: not the memory that was left, off\n")
	:: else
	fi;
	if
	:: msr ->
		live = 1;
		if
		:: BUG != RESUME_SYNC -> sync()
		:: else
		fi;
		p = LAZY_ARMED;
		write_area(ACTIVE);
		NOTE("KVM: RESUME, armed = #%d\n", ARMED)
	:: else
	fi
}

inline set_msr(value)		/* kvm_lazy_tscd_set_msr() */
{
	park(0);
	forget();
	msr = value;
	moved = value && BUG != ENABLE_STALE
}

inline change_mode(to)		/* apic_update_lvtt(): CLEAR */
{
	running = 0; fired = 0; TIMER = 0; stale = 0; dl = to;
	req = req || (live && BUG != CLEAR_MODE)
}

inline lapic_reset(keep)	/* kvm_lapic_reset(), or a VMM's SET_LAPIC of such a state */
{
	change_mode(0);
	apic = 0; masked = 1; irr = 0; wiped = 0; halted = 0; mine = 0; on = 0; reboot = 1;
	PENDING = 0; ARMED = 0;
	if
	:: BUG != keep -> forget()
	:: else
	fi;
	NOTE("KVM: RESET\n")
}

inline tsc_moved()		/* kvm_lazy_tscd_tsc_moved() */
{
	stale = running; moved = 1; req = 1; NOTE("KVM: the TSC is moved\n");
	DELIVERED = (BUG == DELIVERED_MOVED -> DELIVERED : 0)
}

inline handle_exit()
{
	req = req || retry;		/* kvm_lapic_sync_from_vapic() */
	retry = 0;
	if
	:: why == wrmsr -> set_deadline(REG)
	:: why == rdmsr -> sync()
	:: why == hlt -> window = window && BUG != HLT_RUNS; halted = BUG != HLT_RUNS
	:: why == enable && offered && !gone -> mine = 1; set_msr(1); resume()
	:: why == disable -> set_msr(0); PENDING = 0; ARMED = 0
	:: why == mask -> masked = !masked
	:: why == mode_off -> change_mode(0)
	:: why == mode_on ->
		if
		:: !dl -> change_mode(1)
		:: else
		fi;
		apic = 1; masked = 0
	:: why == apic_off ->
		apic = 0; masked = 1; wiped = wiped || (fired && !live); fired = 0;
		req = req || live; moved = moved || (live && BUG != SPIV_WIPES)
	:: why == apic_on -> apic = 1
	:: why == adjust -> tsc_moved()
	:: else
	fi;
	why = none
}

#include "vmm.pml"

active proctype timer()		/* apic_timer_fn(): on any CPU, at any time, early too */
{
	byte p;
end:	do
#if BUG == REMOTE			/* as if it could look at the area while the guest runs */
	:: d_step { running && in_guest && live -> running = 0; callback = 1; NOTE("timer fires\n");
		    ARMED = (FENCED -> 0 : ARMED); p = (FENCED -> 0 : PENDING) }
		d_step { p = (FENCED -> PENDING : p);
			if
			:: p == 0 -> TIMER = 0
			:: p > now && p > TIMER -> TIMER = p; running = 1
			:: else -> fired = 1; out = 1
			fi;
			ARMED = (running -> TIMER : 0);
			NOTE("KVM, other CPU: pending was #%d, armed = #%d\n", p, ARMED);
			callback = 0; p = 0 }
	:: d_step { running && !(in_guest && live) -> running = 0; fired = 1; out = 1 }
#else
	:: d_step { running -> running = 0; fired = 1; out = 1; NOTE("timer for #%d fires\n", TIMER) }
#ifdef FAST
	:: d_step { running && TIMER > now -> running = 0; fired = 1; out = 1; fast = 1;
		    NOTE("timer for #%d fires too early\n", TIMER) }
#endif
#endif
	od
}

#ifdef TSO
active proctype buffer()	/* the guest CPU's store buffer */
{
end:	do
	:: d_step { sb -> drain() }
	od
}
#endif

active proctype vcpu()		/* kvm_arch_vcpu_ioctl_run(), vcpu_run() */
{
	byte p, r; bool woken, kicked, late, lapic, deadline, carried, mode, value;

	if
	:: knows = BUG == RESUME_SYNC || BUG == UNREADABLE	/* where the search begins */
	:: knows = BUG != RESUME_SYNC && BUG != UNREADABLE
	fi;
	do
	:: if
	   :: !halted ->			/* vcpu_enter_guest() */
		if
		:: BUG != PUBLISH && req && !callback -> d_step { publish() }
		:: else
		fi;
		if
		:: d_step { !out && (!req || BUG == PUBLISH) && !callback ->
			    in_guest = 1; check_armed(); check_timer(); NOTE("VM-entry\n") };
end:			if
			:: d_step { in_guest && (out || !calm) -> drain(); in_guest = 0; NOTE("VM-exit\n") }
			:: !in_guest
			fi
		:: else
		fi
	   :: halted && irr && apic -> halted = 0
	   :: halted && !calm -> halted = 0	/* another interrupt is there: no HALT */
	   :: else ->				/* vcpu_block() */
		d_step { window = 0;
			 if :: BUG != HALT_SYNC -> sync() :: else fi;
			 check_timer(); NOTE("KVM: HALT, timer for #%d\n", TIMER) };
end1:		if
		:: d_step { fired && !masked && apic -> woken = 1 }
		:: !calm			/* a signal */
		:: !calm -> halted = 0		/* another interrupt */
		fi
	   fi;
	   d_step {
		!callback ->
		handle_exit();
		out = 0;
		if
		:: fired && !masked && apic -> kick()
		:: else
		fi;
		woken = 0;
		squeeze()
	   };
#if BUG == KICK_ORDER
	   d_step { fired = fired && !late; late = 0 }
#endif
	   if
	   :: d_step { !calm -> park((BUG == PARK_ACTIVE -> TOKEN + 1 : TOKEN)) };
		userspace();
		d_step { true -> resume() }
	   :: d_step { !calm -> lapic_reset(INIT_KEEPS) }	/* INIT */
#ifdef GONE		/* as a VMM's other thread may do to a running vCPU */
	   :: d_step { !calm && gone -> gone = 0; NOTE("VMM: the memory is back\n") }
	   :: d_step { !calm && on && !gone -> gone = 1; NOTE("VMM: the memory is away\n") }
#endif
	   :: true
	   fi
	od
}
