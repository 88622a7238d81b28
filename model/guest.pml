/* SPDX-License-Identifier: MIT */
/*
 * The guest: drivers/deadline_lazy.c, kernel/clockevent.c, kernel/idle.c. A step is one
 * load, one store, or one instruction that exits. It needs the vCPU in guest mode, and
 * between any two KVM may take it out.
 */
inline drain()
{
#ifdef TSO
	PENDING = (sb -> BUFFERED : PENDING);
	BUFFERED = 0;
#endif
	sb = 0
}

inline store_pending()		/* area.pending = REG */
{
	d_step { in_guest && !gone -> drain();
#ifdef TSO
		 BUFFERED = REG;
#else
		 PENDING = REG;
#endif
		 sb = 1; squeeze(); NOTE("guest: pending = #%d\n", REG) }
#ifdef FENCE
	; d_step { in_guest -> drain() }
#endif
}

inline load_armed()
{
	d_step { in_guest && !gone -> need = (ARMED == 0 || REG < ARMED);
		 NOTE("guest: armed is #%d\n", ARMED) }
}

inline load_host()
{
	d_step { in_guest && !gone -> need = !(host_word & 1) && BUG != DEFER_BLIND;
		 window = !need; NOTE("guest: host is %d\n", host_word) }
}

inline vmexit(reason)		/* KVM sees what was stored: docs/model.md */
{
	d_step { in_guest -> drain(); in_guest = 0; why = reason; NOTE("guest: %e\n", reason) }
	d_step { in_guest -> skip }
}

inline lazy_set()
{
	if
	:: BUG != SET_ORDER -> store_pending(); load_armed()
	:: BUG == SET_ORDER -> load_armed(); store_pending()
	fi;
	if
	:: need -> vmexit(wrmsr)
	:: else
	fi
}

inline lazy_defer()
{
	if
	:: BUG != DEFER_ORDER -> store_pending(); load_host()
	:: BUG == DEFER_ORDER -> load_host(); store_pending()
	fi;
	if
	:: need -> lazy_set()
	:: else
	fi
}

inline program()		/* REG is the wheel's next deadline */
{
	if
	:: idle && REG > now -> lazy_defer()
	:: else -> window = 0; lazy_set()
	fi
}

inline finish()
{
	d_step { in_guest -> REG = 0; need = 0; busy = 0; squeeze(); check_armed(); check_timer() }
}

active proctype guest()
{
	byte r; bool need, idle;
boot:	{
		d_step { reboot = 0; on = 0; wiped = 0; window = 0; idle = 0; need = 0; r = 0; REG = 0 };
		vmexit(mode_on);
		/* lazy_enable() */
		atomic { choose(REG); if :: true :: REG = 0 fi };
enabling:	busy = 1;
		vmexit(wrmsr);
		d_step { in_guest && !gone -> ARMED = 0; host_word = 0 }
		if
		:: BUG != ENABLE_ORDER -> store_pending(); vmexit(enable)
		:: BUG == ENABLE_ORDER -> vmexit(enable); store_pending()
		fi;
		on = 1;
		finish();
		do
		/* The timer's interrupt, or other code: clockevent.c, program() */
		:: atomic { in_guest && !calm -> busy = 1; if :: irr -> irr = 0 :: true fi };
			if
			:: REG = 0; store_pending(); window = 0		/* lazy_cancel() */
			:: atomic { choose(REG) }; program()
			fi;
			finish()
		/* idle.c: enter, halt, exit */
		:: d_step { in_guest && !calm && !idle -> idle = 1 }
		:: idle -> vmexit(hlt)
		:: d_step { in_guest && !calm && idle -> busy = 1 }
			d_step { in_guest && !gone -> REG = VIEW }	/* lazy_commit() */
			if
			:: REG && BUG != NO_COMMIT -> lazy_set()
			:: else
			fi;
			idle = 0; window = 0;
			finish()
		:: d_step { in_guest && !calm && !idle -> busy = 1 }
			if
			:: vmexit(disable); on = 0; mine = 0;
				atomic { choose(REG); if :: true :: REG = 0 fi };
				goto enabling
			:: vmexit(rdmsr)
			:: vmexit(mask)
			:: REG = 0; store_pending(); vmexit(mode_off); vmexit(mode_on)
#ifdef SPIV
			:: vmexit(apic_off); vmexit(apic_on)
#endif
#ifdef TSC
			:: atomic { in_guest -> select(r : 1 .. top); now = r; r = 0 }; vmexit(adjust)
			:: vmexit(enable)
#endif
			fi;
			finish()
		/* The deadline stays and no more is done: then the interrupt must come. */
		:: d_step { in_guest && !calm && VIEW && !masked && apic && !gone && !wiped -> calm = 1 }
		:: d_step { in_guest && calm && irr && VIEW <= now } -> goto delivered
		:: d_step { in_guest && calm && irr && VIEW > now -> irr = 0; busy = 1; REG = VIEW };
			program();
			finish()
		od
	} unless { reboot }
	goto boot;
delivered:
end:	false
}
