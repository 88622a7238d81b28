#!/bin/sh
# SPDX-License-Identifier: MIT
#
# watch.sh no|ADDRESS:SIZE QEMU OPTION...: in the emulated host, a guest, and beside its serial
# line, on standard output, what the host says of it; each such line begins with @
# (lab/watch.py).
#
# The guest pauses when it has nothing more to do (drivers/debug_exit.h). Then no count
# moves, and they are read: by QMP from QEMU, and where the guest keeps a trace, which is
# in its memory at ADDRESS, from KVM's tracepoints too. Such a guest also pauses after each
# of its runs, and what it has written down is taken from its memory.

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

# apic_timer_fn() is the callback of KVM's timer. The area is read and written by helpers
# that others use as well, for other sizes; pending is what the helper is about to read.
probes() {
	echo >$tracing/kprobe_events
	{
		echo "p:sloth/kvm_set_deadline kvm_set_lapic_tscdeadline_msr value=%si:x64"
		echo "p:sloth/kvm_area_read kvm_read_guest_cached gpa=+8(%si):x64" \
			"pending=+u16(+16(%si)):x64 host=+u8(+16(%si)):x64 size=%cx:u64"
		echo "p:sloth/kvm_area_write kvm_write_guest_cached gpa=+8(%si):x64" \
			"armed=+0(%dx):x64 host=+8(%dx):x64 size=%cx:u64"
	} >>$tracing/kprobe_events
	echo 'size == 64' >$tracing/events/sloth/kvm_area_read/filter
	echo 'size == 8 || size == 16' >$tracing/events/sloth/kvm_area_write/filter
	callback=$(awk '$3 == "apic_timer_fn" { print $1; exit }' /proc/kallsyms)
	for event in hrtimer_start hrtimer_expire_entry; do
		echo "function == 0x$callback" >$tracing/events/timer/$event/filter
		echo 1 >$tracing/events/timer/$event/enable
	done
	echo 1 >$tracing/events/sloth/enable
}

trace_on() {
	mountpoint -q $tracing || mount -t tracefs tracefs $tracing || return
	echo 0 >$tracing/tracing_on
	echo x86-tsc >$tracing/trace_clock
	echo 0 >$tracing/options/overwrite # what comes first is kept
	echo 65536 >$tracing/buffer_size_kb
	echo >$tracing/trace
	echo 0 >$tracing/events/enable
	# These count in the kernel, so they miss nothing when the ring is full.
	echo 'hist:keys=exit_reason:size=1024' >$kvm/kvm_exit/trigger
	echo 'hist:keys=write,ecx:size=1024' >$kvm/kvm_msr/trigger
	for event in kvm_entry kvm_exit kvm_msr kvm_apic_accept_irq kvm_inj_virq kvm_eoi \
		kvm_pv_eoi kvm_vcpu_wakeup kvm_hv_timer_state kvm_userspace_exit; do
		echo 1 >$kvm/$event/enable
	done
	probes || return
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

save="{\"execute\":\"pmemsave\",\"arguments\":{\"val\":${trace%:*},\"size\":${trace#*:},\
\"filename\":\"$place/memory\"}}"

# Looks into a vCPU now and then, each by turns, for which QEMU takes it out of KVM_RUN, and
# writes back what it has read of it: else a trace would have next to no PARK and RESUME. All of
# them each time would leave eight in their firmware no time to go on.
disturb() {
	cpus=$(echo "$*" | sed 's/.* -smp \([0-9]*\).*/\1/')
	cpu=0
	while sleep 0.1; do
		echo "{\"execute\":\"human-monitor-command\",\"arguments\":\
{\"command-line\":\"p \$pc\",\"cpu-index\":$cpu}}" >&4
		cpu=$(((cpu + 1) % cpus))
	done
}

# QEMU's client. Both ends are opened for both, so that nothing waits for QEMU.
talk() {
	exec 5<>"$place/qmp.out"
	echo '{"execute":"qmp_capabilities"}' >&4
	while read -r line; do
		case $line in
		*'"event": "GUEST_PANICKED"'*)
			echo @pause
			if [ "$trace" != no ]; then
				counts
				echo "$save" >&4
			fi
			echo "$query" >&4
			;;
		*'"id": "stats"'*) # the answer, or why there is none
			if [ -f "$place/memory" ]; then
				gzip -1 <"$place/memory" | base64 -w 1000 | sed 's/^/@m /'
				echo @saved
				rm "$place/memory"
			fi
			printf '@stats %s\n' "$line"
			echo '{"execute":"cont"}' >&4
			;;
		esac
	done <&5
}

guest() {
	"$@" -qmp "pipe:$place/qmp" -device pvpanic -action panic=pause
}

echo "@guest"
[ "$trace" = no ] || trace_on || echo "@error no tracefs in this host"
exec 4<>"$place/qmp.in"
talk &
helpers=$!
if [ "$trace" != no ]; then
	disturb "$@" &
	helpers="$helpers $!"
fi
if [ -p /dev/stdout ]; then # QEMU turns blocking off; a pipe that is opened anew is not ours
	guest "$@" >/dev/stdout
else
	guest "$@"
fi
status=$?
# shellcheck disable=SC2086 # one or two
kill $helpers
if [ "$trace" != no ]; then
	echo 0 >$tracing/tracing_on
	grep -h dropped $tracing/per_cpu/cpu*/stats | sed 's/^/@ring /'
	sed 's/^/@h /' $tracing/trace
fi
rm -rf "$place"
exit $status
