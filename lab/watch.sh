#!/bin/sh
# SPDX-License-Identifier: MIT
#
# watch.sh yes|no QEMU OPTION...: in the emulated host, a guest, and beside its serial line,
# on standard output, what the host says of it; each such line begins with @ (lab/watch.py).
#
# The guest pauses when it has nothing more to do (drivers/debug_exit.h). Then no count
# moves, and they are read: by QMP from QEMU, and with "yes" from KVM's tracepoints too.

trace=$1
shift
place=$(mktemp -d) || exit 125
mkfifo "$place/qmp.in" "$place/qmp.out"
tracing=/sys/kernel/tracing
kvm=$tracing/events/kvm

# exit_counts.* are the counters of the hypercall.
names=
for name in exits halt msr_write tsc_deadline icr preemption_timer external_interrupt io \
	hypercall kick rearm cancelled halt_sync timer_interrupt; do
	names="$names${names:+,}\"exit_counts.$name\""
done
query="{\"execute\":\"query-stats\",\"id\":\"stats\",\"arguments\":{\"target\":\"vcpu\",\
\"providers\":[{\"provider\":\"kvm\",\"names\":[$names]}]}}"

trace_on() {
	mountpoint -q $tracing || mount -t tracefs tracefs $tracing || return
	echo 0 >$tracing/tracing_on
	echo x86-tsc >$tracing/trace_clock
	echo 0 >$tracing/options/overwrite # what comes first is kept
	echo 65536 >$tracing/buffer_size_kb
	echo >$tracing/trace
	# These count in the kernel, so they miss nothing when the ring is full.
	echo 'hist:keys=exit_reason:size=1024' >$kvm/kvm_exit/trigger
	echo 'hist:keys=write,ecx:size=1024' >$kvm/kvm_msr/trigger
	for event in kvm_entry kvm_exit kvm_msr kvm_apic_accept_irq kvm_inj_virq kvm_eoi \
		kvm_pv_eoi kvm_vcpu_wakeup kvm_hv_timer_state; do
		echo 1 >$kvm/$event/enable
	done
	echo 1 >$tracing/tracing_on
}

# The counts while the guest stands still.
counts() {
	sed 's/^/@exits /' $kvm/kvm_exit/hist
	sed 's/^/@msrs /' $kvm/kvm_msr/hist
	for vcpu in /sys/kernel/debug/kvm/*-*/vcpu*; do
		echo "@offset ${vcpu##*/vcpu} $(cat "$vcpu/tsc-offset")" \
			"$(cat "$vcpu/tsc-scaling-ratio" "$vcpu/tsc-scaling-ratio-frac-bits" \
				2>/dev/null | tr '\n' ' ')"
	done
}

# QEMU's client. Both ends are opened for both, so that nothing waits for QEMU.
talk() {
	exec 4<>"$place/qmp.in" 5<>"$place/qmp.out"
	echo '{"execute":"qmp_capabilities"}' >&4
	while read -r line; do
		case $line in
		*'"event": "GUEST_PANICKED"'*)
			[ "$trace" = yes ] && counts
			echo "$query" >&4
			;;
		*'"id": "stats"'*) # the answer, or why there is none
			printf '@stats %s\n' "$line"
			echo '{"execute":"cont"}' >&4
			;;
		esac
	done <&5
}

echo "@guest"
[ "$trace" = no ] || trace_on || echo "@error no tracefs in this host"
talk &
talker=$!
"$@" -qmp "pipe:$place/qmp" -device pvpanic -action panic=pause
status=$?
kill $talker
if [ "$trace" = yes ]; then
	echo 0 >$tracing/tracing_on
	grep -h dropped $tracing/per_cpu/cpu*/stats | sed 's/^/@ring /'
	sed 's/^/@h /' $tracing/trace
fi
rm -rf "$place"
exit $status
