# SPDX-License-Identifier: MIT
"""sparse, the kernel's own checker of what a compiler does not see, has nothing to say of the
series: of each file that it touches no more than of the file without it."""

import re
import shutil
from collections import Counter

import pytest

from conftest import KERNELS
from lab import debs, modules

KVM = "arch/x86/kvm/"
PLANTED = "\nint __user *sloth_planted;\nint sloth_read(void) { return *sloth_planted; }\n"


@pytest.fixture(scope="module", params=KERNELS)
def kvm(request, tmp_path_factory):
    """(names of the files, say): say(name, contents) is what sparse says of that file."""
    series = request.param
    modules.build(series)
    kernel = debs.get(series)
    tree = tmp_path_factory.mktemp(f"sparse-{series}") / "tree"
    shutil.copytree(modules.repository(series).with_name("tree"), tree)
    headers = debs.headers(kernel)

    def say(name, contents=None):
        if contents is not None:
            (tree / name).write_text(contents)
        status, output = modules.compiler_call(
            tree, headers, "C=2", "CF=-fmax-warnings=unlimited",
            name.removeprefix(KVM).replace(".c", ".o"))
        assert status == 0 and re.search(rf"^ +CHECK +\S+{name}$", output, re.M), output[-2000:]
        return Counter(re.findall(r"^\S+?:\d+:\d+: (.*)$", output, re.M))

    def base(name):
        return modules.git_or_fail(modules.repository(series), "show", f"base:{name}")

    names = sorted(name for name in modules.touched(modules.patches(series))
                   if name.startswith(KVM) and name.endswith(".c"))
    return names, say, base


def test_sparse_says_no_more_of_the_patched_files(kvm):
    names, say, base = kvm
    assert KVM + "lapic.c" in names
    for name in names:
        said = say(name)
        if said:    # Linux' own, then
            more = said - say(name, base(name))
            assert not more, f"{name}: {list(more)}"


def test_sparse_notices(kvm):
    """A pointer to user memory that is used as one of the kernel's."""
    _, say, base = kvm
    name = KVM + "debugfs.c"
    assert any("dereference of noderef" in line for line in say(name, base(name) + PLANTED))
