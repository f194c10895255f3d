"""Free memory, in control groups of both versions."""

import pytest

from mvit.parent.free_memory import FreeMemory, free_memory
from mvit.parent.memory_groups import memory_groups

GIB = 2**30
FREE = FreeMemory(8 * GIB, "")


@pytest.fixture
def system(tmp_path):
    """Makes a machine of 8 free GiB where this process is in these groups, with these files below /sys/fs/cgroup."""

    def make(groups, files):
        proc = tmp_path / "proc/self"
        proc.mkdir(parents=True)
        (proc / "cgroup").write_text(groups)
        (proc.parent / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
        for name, text in files.items():
            file = tmp_path / "sys/fs/cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return tmp_path

    return make


def version_2(group, *, limit, used, cache=0):
    stat = f"anon 1\nfile 2\ninactive_file {cache}"
    return {f"{group}memory.max": limit, f"{group}memory.current": used, f"{group}memory.stat": stat}


def version_1(group, *, limit, used, cache=0):
    stat = f"inactive_file 0\ntotal_inactive_file {cache}"
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    return dict(zip((f"memory/{group}{name}" for name in names), (limit, used, stat), strict=True))


@pytest.mark.parametrize(("files", "line"), [(version_2, "0::/"), (version_1, "4:memory:/")])
def test_files_that_were_read_are_not_used_memory(system, files, line):
    machine = system(line, files("", limit=4 * GIB, used=4 * GIB - 5, cache=3 * GIB))
    assert free_memory(machine) == FreeMemory(3 * GIB + 5, " in the control group")


@pytest.mark.parametrize(("files", "line"), [(version_2, "0::/a/b"), (version_1, "4:memory:/a/b\n1:cpu:/\n0::/")])
def test_the_group_of_this_process_counts(system, files, line):
    machine = system(line, {**files("", limit=7 * GIB, used=0), **files("a/b/", limit=2 * GIB, used=GIB)})
    assert free_memory(machine) == FreeMemory(GIB, " in the control group")


def test_a_group_around_it_may_leave_less(system):
    files = {**version_2("a/", limit=2 * GIB, used=GIB), **version_2("a/b/", limit="max", used=GIB)}
    assert free_memory(system("0::/a/b", files)) == FreeMemory(GIB, " in the control group")


def test_in_a_container_that_hides_the_path_the_root_is_the_group(system):
    machine = system("0::/docker/abcd", version_2("", limit=GIB, used=0))
    assert free_memory(machine) == FreeMemory(GIB, " in the control group")


@pytest.mark.parametrize(("files", "line"), [(version_2, "0::/"), (version_1, "4:memory:/")])
def test_without_a_limit_the_machine_counts(system, files, line):
    limit = "max" if files is version_2 else 2**63 - 4096
    assert free_memory(system(line, files("", limit=limit, used=GIB))) == FREE


def test_without_groups_the_machine_counts(system):
    assert free_memory(system("", {})) == FREE
    assert free_memory().bytes > 0


def test_kills_are_those_of_the_nearest_group_that_shows_them(system):
    files = {"memory.events": "oom 1\noom_kill 7", "a/memory.events": "oom 0\noom_kill 0"}
    assert [group.kills() for group in memory_groups(system("0::/a/b", files))] == [None, 0, 7]
