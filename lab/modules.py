# SPDX-License-Identifier: MIT
"""kvm.ko, kvm-amd.ko and kvm-intel.ko with the patch series applied.

Three steps, each under build/:

source    the files of linux-source that the build and the patches need
series    a scratch git repository of them; the patches go in with `git am`
tree      what is compiled, out of tree, against the packaged headers. Only files
          that changed are written, so an edit of a patch costs what it touches.

The result is kept until a patch, the kernel, the compiler or this file changes."""

import hashlib
import os
import re
import shutil
from pathlib import Path

from lab import debs, system, ui
from lab.system import BUILD, ROOT
from lab.ui import Fail, Usage

PATCHES = ROOT / "host-patches"
NAMES = ("kvm", "kvm_amd", "kvm_intel")

# Unpacked whatever the patches touch: KVM itself, the headers (a patched one under
# uapi/ needs its namesake outside of it), checkpatch.pl with what it reads, and the
# library of KVM's selftests.
PATHS = ("arch/x86/kvm", "arch/x86/include", "virt/kvm", "include/linux", "include/uapi/linux",
         "include/trace/events", "Documentation/virt/kvm", "scripts/checkpatch.pl",
         "scripts/spelling.txt", "scripts/const_structs.checkpatch",
         "tools/testing/selftests/kvm", "tools/testing/selftests/kselftest.h",
         "tools/testing/selftests/kselftest_harness.h", "tools/include",
         "tools/arch/x86/include", "tools/lib/rbtree.c")

HEADER_ROOTS = ("arch/x86/include/", "include/")
BUILT = ("arch/x86/kvm/", "virt/kvm/")
IGNORED = ("Documentation/", "tools/")  # patches may touch these; no module needs them

MAKEFILE = "arch/x86/kvm/Makefile"
# Before the packaged headers: the patched ones, in the kernel's own order. The two
# uapi directories also make the relative TRACE_INCLUDE_PATH resolve into our copy.
PREAMBLE = ("LINUXINCLUDE := -I$(SLOTH_TREE)/arch/x86/include -I$(SLOTH_TREE)/include"
            " -I$(SLOTH_TREE)/arch/x86/include/uapi -I$(SLOTH_TREE)/include/uapi"
            " $(LINUXINCLUDE)\n")
INCLUDE_DIRECTORIES = ("arch/x86/include/uapi", "include/uapi")

# Debug information would double the time and cannot be used without vmlinux.
WITHOUT = ("CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF=", "CONFIG_DEBUG_INFO_BTF_MODULES=")


def series_available(directory=PATCHES):
    found = (path.name.removeprefix("linux-") for path in directory.glob("linux-[0-9]*")
             if path.is_dir())
    return sorted(found, key=debs.release_key)


def series_here():
    """Those of them that this Debian has, by its apt lists: none has each kernel."""
    known = series_available()
    return ([series for series in known if debs.resolve(series)]
            or [series for series in known if debs.cached_kernels(series)])


def default_series():
    """The one that --kernel does not have to name: the first that there is."""
    here = series_here() or (debs.update_lists() and series_here())
    if not here:
        raise debs.not_in_lists(" or ".join(series_available()))
    return here[0]


def series_obtainable():
    """Those whose packages are there to use. The default one must be."""
    default, found = default_series(), []
    for series in series_available():
        try:
            if series not in series_here():
                raise Fail("this Debian's apt lists do not have it")
            debs.get(series)
            found.append(series)
        except Fail as fail:
            if series == default:
                raise
            ui.say(f"Linux {series} is left out: {fail}")
    return found


def check_series(series):
    known = series_available()
    here = series_here() or known   # without lists nobody knows yet
    if series not in known or not (series in here or debs.cached_kernels(series)):
        raise Usage(f"--kernel={series}: no such kernel here; there is {', '.join(here) or 'none'}")


def patches(series, directory=PATCHES):
    """The series in order, without its cover letter."""
    found = sorted((directory / f"linux-{series}").glob("[0-9][0-9][0-9][0-9]-*.patch"))
    return [path for path in found if not path.name.startswith("0000-")]


def touched(patch_files):
    """Paths that the patches change or create."""
    paths = set()
    for patch in patch_files:
        text = patch.read_text(errors="replace")
        for old, new in re.findall(r"^--- (\S+).*\n\+\+\+ (\S+)", text, re.M):
            paths.update(name[2:] for name in (old, new) if name[:2] in ("a/", "b/"))
    return paths


def sources(kernel, patch_files):
    extra = {path for path in touched(patch_files)
             if not any(path == known or path.startswith(known + "/") for known in PATHS)}
    return debs.source(kernel, [*PATHS, *sorted(extra)])


# The series, applied.

def git(where, *argv):
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("GIT_")}
    # Nothing of the user's own configuration; the same commits each time.
    environment.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", LC_ALL="C",
                       GIT_COMMITTER_NAME="lab", GIT_COMMITTER_EMAIL="lab@localhost",
                       GIT_AUTHOR_NAME="lab", GIT_AUTHOR_EMAIL="lab@localhost")
    return system.call(["git", "-C", where, *argv], env=environment)


def git_or_fail(where, *argv):
    status, output = git(where, *argv)
    if status != 0:
        raise Fail(f"git {argv[0]} failed in {where}: {output.strip()}")
    return output


def place_of_failure(output):
    """What `git am` said about where a patch failed: file and line of each hunk."""
    hunks = re.findall(r"^error: patch failed: (\S+:\d+)$", output, re.M)
    if hunks:
        return "hunk at " + ", ".join(hunks)
    errors = re.findall(r"^(?:error|fatal): (.*)$", output, re.M)
    return errors[0] if errors else output.strip().splitlines()[0]


def apply(base, patch_files, repository, version):
    """`git am` the patches onto a copy of base. Leaves the result in repository."""
    stamp = f"{version} " + (base / ".stamp").read_text()
    note = repository / ".git" / "lab-base"
    if not note.is_file() or note.read_text() != stamp:
        shutil.rmtree(repository, ignore_errors=True)
        shutil.copytree(base, repository, ignore=shutil.ignore_patterns(".stamp"))
        git_or_fail(repository, "init", "-q")
        git_or_fail(repository, "add", "-A", "-f")
        git_or_fail(repository, "commit", "-q", "-m", f"Linux {version}")
        git_or_fail(repository, "tag", "base")
        note.write_text(stamp)
    git(repository, "am", "--abort")
    git_or_fail(repository, "reset", "-q", "--hard", "base")
    git_or_fail(repository, "clean", "-q", "-d", "-f", "-x")
    for patch in patch_files:
        status, output = git(repository, "am", "-q", "--keep-cr", patch.resolve())
        if status != 0:
            git(repository, "am", "--abort")
            name = patch.relative_to(ROOT) if patch.is_relative_to(ROOT) else patch
            raise Fail(f"{name} does not apply to Linux {version}: {place_of_failure(output)}")
    return git_or_fail(repository, "diff", "--name-only", "base", "HEAD").split()


# The tree to compile.

def wanted(repository, changed):
    """{path: contents} of the tree to compile."""
    files = {}
    for root in BUILT:
        for path in (repository / root).rglob("*"):
            if path.is_file():
                files[str(path.relative_to(repository))] = path.read_bytes()
    for name in changed:
        if name.startswith(HEADER_ROOTS):
            plain = name.replace("include/uapi/", "include/")
            for header in {name, plain}:
                if (repository / header).is_file():
                    files[header] = (repository / header).read_bytes()
        elif not name.startswith(BUILT + IGNORED):
            raise Fail(f"the patches change {name}, which is not part of KVM's modules")
    text = files[MAKEFILE].decode().replace("$(srctree)", "$(SLOTH_TREE)")
    files[MAKEFILE] = (PREAMBLE + text).encode()
    return files


def update_tree(tree, files):
    """Make tree's sources equal to files; touch nothing that is the same."""
    manifest = tree / ".sources"
    before = manifest.read_text().splitlines() if manifest.is_file() else []
    for name in set(before) - set(files):
        (tree / name).unlink(missing_ok=True)
    for name, contents in files.items():
        path = tree / name
        if not path.is_file() or path.read_bytes() != contents:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)
    for name in INCLUDE_DIRECTORIES:
        (tree / name).mkdir(parents=True, exist_ok=True)
    manifest.write_text("\n".join(sorted(files)))


def first_error(output):
    for line in output.splitlines():
        if re.search(r"\berror\b|ERROR|undefined!", line, re.I):
            return line.strip()
    return (output.strip().splitlines() or ["no output"])[-1]


def compiler_call(tree, headers, *goals):
    """The make that compiles KVM's tree; its status and output."""
    return system.call(
        ["make", "-C", headers, f"M={tree}/arch/x86/kvm", f"SLOTH_TREE={tree}", *WITHOUT,
         f"-j{os.cpu_count() or 1}", *goals], env={**os.environ, "LC_ALL": "C", "MAKEFLAGS": ""})


def compile_tree(tree, headers, version):
    if re.search(r"\s", str(tree)):
        raise Fail(f"the kernel's makefiles do not take a path with a space: {tree}")
    log = BUILD / "modules.log"
    status, output = compiler_call(tree, headers, "modules")
    log.write_text(output)
    if status != 0:
        raise Fail(f"KVM of Linux {version} does not build: {first_error(output)} (all of it:"
                   f" {log})")


def digest(kernel, patch_files):
    total = hashlib.sha256()
    _, compiler = system.call([kernel.compiler(), "--version"])
    total.update(f"{kernel.version}\n{compiler}\n{BUILD}\n".encode())
    for file in (Path(__file__), Path(debs.__file__), *patch_files):
        contents = file.read_bytes()
        total.update(f"{file.name} {len(contents)}\n".encode() + contents)
    return total.hexdigest()


def repository(series):
    """The sources with the series applied, after build()."""
    return BUILD / "modules" / series / "series"


def build(series, patch_directory=PATCHES, name=None):
    """Directory with kvm.ko, kvm_amd.ko and kvm_intel.ko of the patched KVM."""
    kernel = debs.get(series)
    patch_files = patches(series, patch_directory)
    if not patch_files:
        raise Fail(f"there is no patch in {patch_directory / f'linux-{series}'}")
    place = BUILD / "modules" / (name or series)
    result, stamp = place / "result", place / "stamp"
    with system.build_lock("modules"):
        key = digest(kernel, patch_files)
        if stamp.is_file() and stamp.read_text() == key:
            return result
        stamp.unlink(missing_ok=True)
        base = sources(kernel, patch_files)
        headers = debs.headers(kernel)
        with ui.step(f"applying {len(patch_files)} patches to Linux {kernel.version}"):
            changed = apply(base, patch_files, place / "series", kernel.version)
        tree = place / "tree"
        kind = tree / ".kernel"
        if kind.is_file() and kind.read_text() != kernel.version:
            shutil.rmtree(tree)
        tree.mkdir(parents=True, exist_ok=True)
        kind.write_text(kernel.version)
        update_tree(tree, wanted(place / "series", changed))
        with ui.step("building the patched kvm modules (about a minute the first time)"):
            compile_tree(tree, headers, kernel.version)
        result.mkdir(exist_ok=True)
        for module in NAMES:
            shutil.copyfile(tree / "arch/x86/kvm" / f"{module.replace('_', '-')}.ko",
                            result / f"{module}.ko")
        stamp.write_text(key)
    return result
