/* SPDX-License-Identifier: MIT */
/* What a VMM does with a vCPU that is not in KVM_RUN. */
inline set_lapic(to)		/* kvm_apic_set_state() */
{
	running = 0;
	fired = 0;
	if
	:: dl != to -> change_mode(to)
	:: else
	fi;
	if
	:: dl -> start_timer()
	:: else -> forget()
	fi
}

/*
 * Migration, or a snapshot. What the VMM restores after KVM_SET_LAPIC it may as well
 * restore before, but for a deadline whose MSR it does not know: that is KVM's own rule.
 */
inline restore()
{
	d_step { SAVED = TIMER; mode = dl; value = msr; carried = knows; lapic = 1; deadline = 1 };
	if
	:: d_step { true -> change_mode(0); forget(); out = 0; req = 0; retry = 0;
		    NOTE("VMM: migration\n") };
		if
		:: offered = 1
		:: !knows -> offered = 0; mine = 0
		fi
	:: d_step { offered -> msr = 1; host = (BUG == PARK_RANDOM -> TOKEN : OLDER);
		    NOTE("VMM: loadvm, while it went on here\n") }
	fi;
	do
	:: d_step { lapic -> lapic = 0; set_lapic(mode) }
	:: d_step { deadline && (!lapic || (knows && value) || BUG == RESTORE_ORDER) ->
		    deadline = 0; set_deadline(SAVED); SAVED = 0 }
	:: d_step { carried -> carried = 0; set_msr(value) }
	:: !lapic && !deadline && !carried -> break
	od
}

inline userspace()
{
	do
#ifdef GONE
	:: d_step { gone -> gone = 0; NOTE("VMM: the memory is back\n") }
	:: d_step { on && !gone -> gone = 1; NOTE("VMM: the memory is away\n") }
#endif
	:: break
	:: d_step { true -> set_deadline(TIMER) }	/* reads and writes it */
	:: d_step { dl || !torn -> set_lapic(dl) }	/* that, too */
	:: d_step { true -> lapic_reset(RESET_KEEPS) }
	:: atomic { !torn -> restore() }
#ifdef TSC
	:: atomic { msr -> select(r : 1 .. top); now = r; r = 0; d_step { true -> tsc_moved() } }
#endif
	od;
	skip
}
