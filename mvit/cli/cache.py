"""python -m mvit cache: the compiled graphs that are kept on this machine."""

from __future__ import annotations

import argparse
import time

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "cache",
        help="list or clear the compiled graphs that are kept",
        description="Compiled graphs are kept for runs that compile the same ones. They can be removed at any time.",
    )
    parser.add_argument("action", choices=("ls", "clear"), help="list them, the one used last first, or remove them")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.compile_cache.store import LIMIT_BYTES, Store, store_folders

    stores = [Store(folder) for folder in store_folders() if folder.is_dir()]
    if arguments.action == "clear":
        removed = sum(store.clear() for store in stores)
        console.say(f"mvit: removed {_mib(removed)} of compiled graphs")
        return 0
    stores = [store for store in stores if store.entries()]
    if not stores:
        console.say("mvit: no compiled graphs are kept")
    for store in stores:
        for stored in (entries := store.entries()):
            entry, used = stored.entry, time.strftime("%Y-%m-%d %H:%M", time.localtime(stored.used))
            seconds = f"compiled in {sum(entry.seconds.values()):.1f} s"
            print(f"{stored.key[:12]}  {used}  {_mib(entry.bytes):>9}  {entry.title}  {seconds}")
        total = _mib(sum(stored.entry.bytes for stored in entries))
        console.say(f"mvit: {len(entries)} kept in {store.root}, {total} of at most {_mib(LIMIT_BYTES)}")
    if stores:
        console.hint(f"remove them with: {console.mvit_command('cache', 'clear')}")
    return 0


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
