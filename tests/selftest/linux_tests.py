#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""Linux' own KVM selftests on the patched and on the stock modules: the same results?

    tests/selftest/linux_tests.py [--kernel=6.1|6.12] [--host=bochs] [--table] [TEST...]

Builds those that linux_tests.txt lists (or TESTs, by the last part of their names) out
of the tree with the series applied, and runs them in one emulated host of either kind.
Some of them measure time, of which an emulator on a busy machine keeps little, so what
fails on either, and what differs, runs twice more on both: what passes then passes.

--host=bochs: on the emulated Intel CPU, those for VMX only.

--table: puts the table into host-patches/selftests.md. Exit status 1 if a result
differs (or if one that is known to differ does not). A kernel
takes ten minutes and more on two busy cores."""

import argparse
import collections
import functools
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lab import bochs, debs, initramfs, modules, system, ui
from lab.system import BUILD

HERE = Path(__file__).parent
LIST = HERE / "linux_tests.txt"
TABLE = ROOT / "host-patches/selftests.md"
LIMIT = 300             # seconds for a test, most need one or two
ROUNDS = 3
SKIP, KILLED = 4, (124, 137)    # kselftest.h: KSFT_SKIP; timeout(1)
KINDS = ("patched", "stock")
HOSTS = ("tcg", "bochs")

Test = collections.namedtuple("Test", "runs differs path why")


def listed():
    """{name: Test} of the list, name being the last part of its path."""
    tests = {}
    for line in LIST.read_text().splitlines():
        found = re.fullmatch(r"([+!-]) (\S+) +(\S.*)", line)
        if found:
            sign, path, why = found.groups()
            tests[path.split("/")[-1]] = Test(sign != "-", sign == "!", path, why)
        elif line and not line.startswith("#"):
            raise ui.Fail(f"{LIST.name}: {line!r} is no line of the list")
    return tests


def in_makefile(kernel):
    """Paths of the tests for x86 in the kernel's own Makefile."""
    makefile = modules.repository(kernel) / "tools/testing/selftests/kvm/Makefile"
    return re.findall(r"^TEST_(?:GEN_)?PROGS(?:_EXTENDED)?_x86_64 \+?= (\S+)$",
                      makefile.read_text(), re.M)


@functools.cache
def build(kernel):
    """Directory with the tests, built once for a tree, a list and a build.sh."""
    modules.build(kernel)
    series = modules.repository(kernel)
    paths = [test.path for test in listed().values() if test.runs]
    _, compiler = system.call(["gcc", "--version"])
    tree = modules.git_or_fail(series, "rev-parse", "HEAD^{tree}")
    key = hashlib.sha256("\n".join([tree, compiler, (HERE / "build.sh").read_text(),
                                    *paths]).encode()).hexdigest()
    place = BUILD / "selftests" / kernel
    stamp = place / ".stamp"
    if not stamp.is_file() or stamp.read_text() != key:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        with ui.step(f"building the selftests of Linux {kernel}"):
            status, output = system.call([HERE / "build.sh", series, place, *paths])
        if status != 0:
            raise ui.Fail(f"the selftests of Linux {kernel} do not build:"
                          f" {modules.first_error(output)}")
        stamp.write_text(key)
    return place


# It says nothing and passes over a test that has a result, so that the lab can start a
# host again that stopped.
SCRIPT = """
cd {place}
for name in {names}; do
	out=$SLOTH_SHARE/$name
	[ ! -e "$out.status" ] || continue
	timeout -k 5 {limit} ./$name >"$out" 2>&1 </dev/null
	echo $? >"$out.status"
done
"""


def run(kernel, kind, names, share):
    """{name: result} of one boot. A result is the exit status and what says more about
    it: each sub-test's line, or the place of the failure."""
    script = SCRIPT.format(place=build(kernel), limit=LIMIT, names=" ".join(names))
    shutil.rmtree(share, ignore_errors=True)
    share.mkdir(parents=True)
    argv = [ROOT / "sloth", "host", "--host=tcg", f"--kernel={kernel}", f"--share={share}",
            f"--timeout={LIMIT * len(names)}", *(["--stock"] if kind == "stock" else []),
            "--", "sh", "-c", script]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise ui.Fail(f"the {kind} host does not end the selftests; their output: {share}")
    return {name: result(int((share / f"{name}.status").read_text()),
                         (share / name).read_text(errors="replace")) for name in names}


# As above, where a test sees no files but those given and standard output is all there is.
INTEL_SCRIPT = """
for name in {names}; do
	busybox timeout -k 5 {limit} /{place}/$name >/out 2>&1 </dev/null
	status=$?
	echo
	echo "== $name $status"
	busybox cat /out
done
"""


class Sink:
    data = b""

    def write(self, data):
        self.data += data


def run_on_intel(kernel, kind, names, share):
    """run() on the emulated Intel CPU."""
    place, out = build(kernel), Sink()
    binaries = [place / name for name in names]
    files = [*binaries, *dict.fromkeys(library for binary in binaries
                                       for library in initramfs.libraries(binary))]
    script = INTEL_SCRIPT.format(names=" ".join(names), place=place, limit=LIMIT)
    bochs.Host(kernel, kind == "stock").run(["busybox", "sh", "-c", script], files=files,
                                            stdout=out, limit=LIMIT * len(names))
    said = re.split(r"^== (\S+) (\d+)\n", out.data.decode(errors="replace"), flags=re.M)[1:]
    return {name: result(int(status), text)
            for name, status, text in zip(said[::3], said[1::3], said[2::3])}


def result(status, output):
    if status in KILLED:
        return status, "time limit"
    skipped = re.search(r"^1\.\.0 # SKIP (?:- )?(?:Requirement not met: )?(.+)$", output, re.M)
    subtests = re.findall(r"^((?:not )?ok) \d+ (.*)$", output, re.M)
    failed = re.search(r"^==== Test Assertion Failure ====\n\s*\S*/(\S+:\d+)", output, re.M)
    guest = re.search(r"Failed guest assert: (.+?)(?: at /.*)?$", output, re.M)
    if skipped:
        return status, skipped.group(1)
    if failed and not subtests:     # in a thread it may leave the status at 0
        return status or 1, failed.group(1) + (f", in the guest: {guest.group(1)}" if guest else "")
    return status, "\n".join(" ".join(line) for line in subtests)


RUN = dict(zip(HOSTS, (run, run_on_intel)))


def compare(kernel, names=None, host="tcg"):
    """{name: {kind: [each result]}} of the tests that the kernel has. On the Intel host
    those for VMX, unless names says other."""
    names = names or [name for name, test in listed().items() if test.runs
                      and (host == "tcg" or test.why.startswith("VMX"))]
    have = {path.split("/")[-1] for path in in_makefile(kernel)}
    names = [name for name in names if listed()[name].runs and name in have]
    place = BUILD / "selftests" / f"results-{kernel}"
    rounds = {name: {kind: [] for kind in KINDS} for name in names}
    again = names
    for number in range(ROUNDS):
        for kind in KINDS if again else ():
            for name, found in RUN[host](kernel, kind, again, place / f"{kind}-{number}").items():
                rounds[name][kind].append(found)
        if number == 0:
            again = [name for name in names if doubtful(rounds[name])]
    return rounds


def doubtful(row):
    (patched,), (stock,) = row["patched"], row["stock"]
    return patched != stock or patched[0] not in (0, SKIP)


def best(found):
    """Of several results: a pass, else the most frequent."""
    passes = [one for one in found if one[0] == 0]
    return collections.Counter(passes or found).most_common(1)[0][0]


def same(row):
    patched = best(row["patched"])
    return patched == best(row["stock"]) and patched[0] not in KILLED


def expected(name, row):
    return same(row) != listed()[name].differs


def words(found):
    status, more = found
    if status in KILLED:
        return more
    if status == SKIP:
        return f"skips: `{more}`" if more else "skips"
    count = more.count("\n") + 1 if more else 0
    passes = f"passes, {count} sub-tests" if count > 1 else "passes"
    return passes if status == 0 else f"fails: `{more.split(': ')[0] or f'status {status}'}`"


def cell(found):
    kinds = collections.Counter(map(words, found)).most_common()
    if len(kinds) == 1:
        return words(found[0])
    return ", ".join(f"{said} ({count} of {len(found)})" for said, count in kinds)


def title(kernel, host):
    intel = ", on the emulated Intel CPU" if host == "bochs" else ""
    return f"## Linux {debs.get(kernel).version}{intel}"


def table(kernel, rows, host):
    tests = listed()
    passed = sum(best(row["patched"])[0] == 0 for row in rows.values())
    yield title(kernel, host)
    yield ""
    yield (f"{len(rows)} tests, of which {sum(map(same, rows.values()))} have the same result on"
           f" both, {passed} pass.")
    yield ""
    yield "| test | patched | stock | what it is about |"
    yield "| --- | --- | --- | --- |"
    for name, row in rows.items():
        cells = [cell(row[kind]) for kind in KINDS]
        yield f"| {name} | {' | '.join(cells)} | {tests[name].why} |"
    yield ""


HEAD = """<!-- SPDX-License-Identifier: GPL-2.0-only -->
# Linux' own KVM selftests on the patched modules

`tests/selftest/linux_tests.py --table` with `--kernel=6.1` and with `--kernel=6.12` wrote
this file. It builds the selftests that [linux_tests.txt](../tests/selftest/linux_tests.txt)
lists, runs them in the emulated host (QEMU's software SVM) on the patched and on the
distribution's modules, and compares exit status, each sub-test's line, and the place of a
failure. `./sloth test --kvm-selftests` does so, too, and fails where they differ. What fails
or differs runs three times on both, as some tests measure time, of which the emulator on a
busy machine keeps little; it counts as passed if it passes in one of these.
"""


def write_table(heading, text):
    """This part of the file anew, the others as they are."""
    parts = {}
    if TABLE.is_file():
        for part in re.split(r"^(?=## )", TABLE.read_text(), flags=re.M)[1:]:
            parts[part.splitlines()[0]] = part
    parts[heading] = text + "\n"
    left = [f"| {name} | {test.why} |\n" for name, test in listed().items() if not test.runs]
    order = [title(kernel, host) for host in HOSTS for kernel in modules.series_available()]
    TABLE.write_text("".join([HEAD, "\n", *(parts[one] for one in order if one in parts),
                              "## Left out\n\n| test | why |\n| --- | --- |\n", *left]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kernel", default=modules.default_series())
    parser.add_argument("--host", choices=HOSTS, default="tcg")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("names", nargs="*", metavar="TEST")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in listed()]
    if unknown:
        parser.error(f"not in the list: {', '.join(unknown)}")
    modules.check_series(options.kernel)
    rows = compare(options.kernel, options.names, options.host)
    text = "\n".join(table(options.kernel, rows, options.host))
    if options.table:
        write_table(title(options.kernel, options.host), text)
    else:
        print(text)
    return 0 if all(expected(name, row) for name, row in rows.items()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ui.Fail as fail:
        ui.say(str(fail))
        sys.exit(1)
