"""What is asked of an exported network that is evaluated."""

import pytest

from mvit.files import file_digest
from mvit.parent.plan import runs_exported
from mvit.parent.request import rules
from mvit.parent.request.check import check, parse
from mvit.parent.request.launch_rules import WEIGHT_RULES
from mvit.parent.request.rules import judge
from mvit.parent.tracking.content import tags_of
from mvit.rundir.exported import Exported, ImageInput, read_about, write_about
from mvit.rundir.frozen import read_run
from mvit.rundir.tracking import TrackingRecord, write_record
from tests.conftest import raw_config

TRAINED = ("model=x_small", "data=synthetic", "data.classes=7", "data.image_size=96", "data.eval_crop_fraction=0.9")
INPUT = {"name": "images", "dtype": "uint8", "layout": "NHWC", "batch_size": None, "size": 96, "antialias": True}
INPUT |= {"resize_short_side": 106, "eval_crop_fraction": 0.9, "interpolation": "bilinear"}


@pytest.fixture
def trained(run_folder):
    return run_folder("trained", *TRAINED)


@pytest.fixture
def network(run_folder, trained):
    """A function that makes model.onnx in the folder of an export, and model.json with other values of its input."""
    checkpoint = trained.checkpoints / "step-00000001.safetensors"
    export = run_folder("export", "task=export", f"task.checkpoint={checkpoint}", *TRAINED)

    def make(**changed):
        export.exported.mkdir()
        path = export.exported / "model.onnx"
        path.write_bytes(b"a network")
        names, digest = tuple(map(str, range(7))), file_digest(path)
        takes = ImageInput(**{**INPUT, **changed})
        about = {"model": "x_small", "input": takes, "output": "logits", "class_names": names}
        write_about(export.exported, Exported(**about, source=str(checkpoint), sha256={"onnx": digest}))
        return path

    return make


def problems(*overrides):
    sections, found = check(raw_config(*overrides))
    return [str(problem) for problem in (*found, *judge(WEIGHT_RULES, sections))]


def evaluating(path):
    return "task=evaluate", f"task.checkpoint={path}"


def test_it_is_evaluated_on_the_data_of_its_export_without_a_graph(network):
    path = network()
    raw = raw_config(*evaluating(path))
    made = raw_config(*TRAINED)
    assert (raw["model"], raw["data"]) == (made["model"], made["data"])
    assert problems(*evaluating(path)) == []
    assert runs_exported(parse(raw))
    assert not runs_exported(parse(made))


def test_a_copy_without_its_run_says_itself_what_it_takes(network, tmp_path):
    copy = tmp_path / "copy"
    network().parent.rename(copy)
    raw = raw_config(*evaluating(copy / "model.onnx"), "data=synthetic", "data.classes=7")
    assert raw["model"]["name"] == "x_small"
    assert (raw["data"]["image_size"], raw["data"]["eval_crop_fraction"]) == (96, 0.9)


@pytest.mark.parametrize(
    ("changed", "overrides", "expected"),
    [
        (
            {"batch_size": 16},
            (),
            "task.batch_size: 60 is not the number of images that model.onnx takes at once; use 16",
        ),
        (
            {},
            ("data.image_size=64",),
            "data.image_size: 64 is not what model.onnx was exported for; use 96",
        ),
        (
            {},
            ("task.weights=ema",),
            "is for checkpoints: a network is exported with one set",
        ),
        ({}, ("topology=ascend_1",), "runs in onnxruntime, on a CPU; use topology=cpu, or model.mindir"),
    ],
)
def test_what_it_cannot_take_is_refused(network, changed, overrides, expected):
    (line,) = problems(*evaluating(network(**changed)), *overrides)
    assert expected in line


def test_another_file_than_was_exported_is_refused(network):
    path = network()
    path.write_bytes(b"another")
    (line,) = problems(*evaluating(path))
    assert "is not the file that model.json beside it vouches for; export it again" in line
    (path.parent / "model.json").write_text("{")
    (line,) = problems(*evaluating(path))
    assert "has no model.json beside it that says what it takes" in line


def test_only_an_evaluation_runs_it(network):
    path = network()
    for overrides in (("task=export", f"task.checkpoint={path}"), ("init=weights", f"init.checkpoint={path}")):
        lines = problems(*overrides)
        assert any("is an exported network, which task=evaluate alone runs" in line for line in lines)


def test_a_folder_is_no_checkpoint_and_the_file_to_name_is_told(network):
    exported = network().parent
    for folder in (exported, exported.parent):
        (line,) = problems(*evaluating(folder))
        assert line.endswith(f"name a file of {exported}")


def test_onnx_needs_its_runtime(network, monkeypatch):
    monkeypatch.setattr(rules, "find_spec", lambda _: None)
    (line,) = problems(*evaluating(network()))
    assert "runs in onnxruntime, which is not installed; pip install 'mvit[onnx]'" in line


def test_its_run_in_mlflow_names_the_training(network, run_folder, trained):
    write_record(trained, TrackingRecord(store="sqlite:///x", experiment="mvit", run_id="f" * 32))
    path = network()
    run = read_run(run_folder("evaluation", *evaluating(path)))
    assert run.plan.graphs == ()
    tags = tags_of(run)
    assert (tags["mvit.trained_by"], tags["mvit.trained_by_run_id"]) == ("trained", "f" * 32)
    assert read_about(path.parent).source.endswith("trained/checkpoints/step-00000001.safetensors")
