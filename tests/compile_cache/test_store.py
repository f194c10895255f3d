"""The store of compiled graphs: what is not whole is never used, and nothing that goes wrong with it is an error."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mvit.compile_cache import store as stores
from mvit.compile_cache.store import Store
from mvit.files import sealed

KEY, OTHER = "a" * 64, "b" * 64
FILES = {
    "rank_0/graph_cache/compile_cache_0.mindir": b"graph" * 1000,
    "rank_0/graph_cache/compile_dependency.hash": b"h",
}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "graphs")


def put(store, key=KEY, *, files=FILES, check="c"):
    with store.workspace() as work:
        for name, data in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(data)
        store.put(key, work, title="tiny", seconds={"train": 2.0}, check=check)


def fetch(store, key=KEY):
    with store.workspace() as work:
        entry = store.fetch(key, work)
        found = {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("*") if path.is_file()}
    return entry, found


def leftovers(store):
    return [path.name for path in store.root.glob(".work-*")]


def test_what_was_put_is_fetched(store):
    assert fetch(store) == (None, {})
    put(store)
    entry, found = fetch(store)
    assert found == FILES
    assert (entry.title, entry.seconds, entry.check) == ("tiny", {"train": 2.0}, "c")
    assert entry.bytes == sum(map(len, FILES.values()))
    assert fetch(store, OTHER) == (None, {})
    assert not leftovers(store)


@pytest.mark.parametrize("name", [*FILES, "entry.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "one byte", "missing", "a folder"])
def test_an_entry_that_is_not_whole_is_gone(store, name, damage):
    put(store)
    path = store.root / KEY / name
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[:-2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "one byte":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "a folder":
        path.mkdir()
    assert fetch(store) == (None, {})
    assert not (store.root / KEY).exists()
    put(store)
    assert fetch(store)[1] == FILES


def test_an_entry_of_another_version_is_gone(store):
    put(store)
    path = store.root / KEY / "entry.json"
    path.write_text(json.dumps(sealed({**json.loads(path.read_text()), "more": 1})))
    assert fetch(store) == (None, {})


def test_a_newer_entry_takes_the_place_of_an_older_one(store):
    put(store, check="old")
    put(store, check="new")
    assert fetch(store)[0].check == "new"


def test_an_entry_that_is_written_is_not_seen(store):
    with store.workspace() as work:
        (work / "half").write_bytes(b"1")
        assert store.entries() == []
        assert fetch(store) == (None, {})


def test_what_was_used_least_recently_goes_first(store):
    for index, key in enumerate((KEY, OTHER, "c" * 64)):
        put(store, key)
        os.utime(store.root / key / "entry.json", (index, index))
    fetch(store)  # uses the oldest one
    size = sum(map(len, FILES.values()))
    store.trim(limit_bytes=2 * size)
    assert {stored.key for stored in store.entries()} == {KEY, "c" * 64}


def test_clear_removes_all(store):
    put(store)
    put(store, OTHER)
    assert store.clear() == 2 * sum(map(len, FILES.values()))
    assert store.entries() == []
    assert not leftovers(store)


def test_entries_of_another_version_do_not_stay(store):
    for remove in (store.clear, store.trim):
        put(store)
        (store.root / KEY / "entry.json").write_text("{}")
        remove()
        assert not (store.root / KEY).exists()


def test_what_a_killed_process_left_is_removed(store):
    program = "import os, signal; from mvit.compile_cache.store import Store; from pathlib import Path\n"
    program += f"with Store(Path({str(store.root)!r})).workspace() as w:\n    (w / 'x').write_text('1')\n"
    program += "    os.kill(os.getpid(), signal.SIGKILL)\n"
    subprocess.run([sys.executable, "-c", program], check=False)
    (name,) = leftovers(store)
    with store.workspace() as work:
        assert leftovers(store) == [work.name]
        assert work.name != name
    foreign = store.root / ".work-elsewhere-1-1-x"
    foreign.mkdir()
    (store.root / ".work-odd").mkdir()
    with store.workspace():
        assert foreign.exists()
    os.utime(foreign, (1, 1))
    with store.workspace():
        assert not foreign.exists()


def test_without_room_there_is_no_workspace(store, monkeypatch):
    monkeypatch.setattr(stores, "SPARE_BYTES", 1 << 62)
    with pytest.raises(OSError, match="free"), store.workspace():
        pass


def test_many_at_once_see_whole_entries(store):
    problems: list[object] = []

    def use():
        try:
            for _ in range(20):
                put(store)
                entry, found = fetch(store)
                if entry is not None and found != FILES:
                    problems.append(found)
        except Exception as error:  # noqa: BLE001  a thread's failure is the test's
            problems.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert not leftovers(store)
    assert Path(store.root / "locks").exists() is False
