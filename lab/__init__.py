# SPDX-License-Identifier: MIT
"""The lab: a patched KVM host under emulation, and the commands that use it.

cli       the command line: which command, which options
ui        progress and errors, on standard error
system    processes that cannot outlive us, signals, temporary directories
debs      Debian's kernel packages: which version, download, unpack
modules   kvm.ko and friends with the patch series applied
initramfs what the emulated host boots from
host      boots the emulated host, runs a command in it, watches over it
bochs     the same for one command on an emulated Intel CPU
probe     --host=auto: what this machine can do
run       the storm: builds, boots the guest, collects the results
results   the JSON lines
"""
