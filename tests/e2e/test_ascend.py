"""Launches for Ascend cards on a machine that has none: stand-ins for its devices, npu-smi and msrun are on PATH.

They show what would run, in the environment that it would have. Nothing of this shows that it runs on a card.
"""

import os
import sys

import pytest

from mvit.cli.main import main
from mvit.files import read_json
from mvit.parent import host
from mvit.places import PROJECT

MSRUN = """\
#!/bin/sh
echo "$0" "$@" > "$MS_OM_PATH/argv"
env > "$MS_OM_PATH/env"
command -v python > "$MS_OM_PATH/python"
exit 3
"""
NPU_SMI = "#!/bin/sh\necho '| npu-smi 24.1.rc2        Version: 24.1.rc2 |'\n"


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """A machine of eight of them; returns the folder of its commands."""
    (tmp_path / "dev").mkdir()
    for name in (*(f"davinci{card}" for card in range(8)), "davinci_manager"):
        (tmp_path / "dev" / name).touch()
    monkeypatch.setattr(host, "DEVICES", tmp_path / "dev")
    room = tmp_path / "bin"
    room.mkdir()
    for name, script in (("msrun", MSRUN), ("npu-smi", NPU_SMI), ("python", "#!/bin/sh\n")):
        (room / name).write_text(script)
        (room / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(room / "python"))
    monkeypatch.setenv("PATH", f"{room}:{os.environ['PATH']}")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)  # of a CPU, and perhaps of this process
    return room


def test_eight_cards_are_started_as_planned(launch_here, cards):
    done = launch_here(
        *("topology=ascend_8", "data=synthetic", "topology.hccl_connect_s=600", "topology.fault_tolerance=[UCE]"),
        "train.max_restarts=0",
    )
    assert done.code == 1
    (file,) = done.runs.glob("*/*/run.json")
    run = file.parent
    logs = run / "logs/attempt-1"
    argv = (logs / "argv").read_text().split()
    port = argv[argv.index("--master_port") + 1]
    assert " ".join(argv) == (
        f"{cards}/msrun --bind_core=True --worker_num 8 --local_worker_num 8 --master_addr 127.0.0.1"
        f" --master_port {port} --log_dir {logs} --join=True --cluster_time_out 360 --tail_worker_log 8"
        f" python -m mvit.worker.main {run}"
    )
    assert (logs / "python").read_text().strip() == str(cards / "python")
    environment = dict(line.partition("=")[::2] for line in (logs / "env").read_text().splitlines())
    assert environment["HCCL_CONNECT_TIMEOUT"] == "600"
    assert environment["MS_ENABLE_TFT"] == "{UCE:1}"
    assert environment["PYTHONPATH"].split(":")[0] == str(PROJECT)
    assert "ONEDNN_MAX_CPU_ISA" not in environment
    made_of = read_json(run / "provenance.json")
    assert made_of["ascend_devices"] == [f"davinci{card}" for card in range(8)]
    assert "Version: 24.1.rc2" in made_of["npu_smi"]
    assert read_json(run / "run.json")["plan"]["jit_level"] == "O1"


def test_the_cards_of_a_slot_are_all_that_is_seen(launch_here, cards):
    cores = "topology.cores=['0-11','12-23']"
    done = launch_here("topology=ascend_8", "topology.cards_per_node=2", cores, "data=synthetic", "freeze=true")
    assert done.code == 0, done.err
    (file,) = done.runs.glob("*/*/run.json")
    assert main(["run", str(file.parent), "--slot", "cards=4,6", "train.max_restarts=0"]) == 1
    logs = file.parent / "logs/attempt-1"
    assert "\nASCEND_RT_VISIBLE_DEVICES=4,6\n" in (logs / "env").read_text()
    assert """ --bind_core={"device4": ["0-11"], "device6": ["12-23"]} """ in (logs / "argv").read_text()


def test_more_cards_than_there_are_are_refused(launch_here, cards):
    done = launch_here("topology=ascend_8", "topology.cards_per_node=9", "data=synthetic", "train.global_batch_size=36")
    assert done.code == 2
    assert done.err == (
        "mvit: topology: needs 9 Ascend cards per node, this host has 8; use topology=cpu, or dry_run=true to see the"
        " plan\n"
    )
