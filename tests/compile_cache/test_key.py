"""The key of compiled graphs: everything that shapes them changes it, and what enters as an input does not."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mvit.compile_cache import key as keys
from mvit.compile_cache.key import NOT_IN_A_GRAPH, PACKAGE, PLANNED, graph_key, shaping, sources_digest
from mvit.data import dataset
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from tests.conftest import raw_config

KINDS = (
    (), ("task=evaluate", "task.checkpoint=x"), ("optimizer=sgd",), ("optimizer=lion",), ("optimizer=lamb",),
    ("augment=mixup_cutmix",), ("precision=fp16", "loss_scale=dynamic"), ("loss_scale=fixed", "precision=fp16"),
    ("schedule=polynomial",), ("data=imagefolder", "data.root=x"), ("data=synthetic",),
    ("init=weights", "init.checkpoint=x"), ("task=predict", "task.checkpoint=x", "data.images=x"),
    ("task=export", "task.checkpoint=x"), ("task=benchmark",), ("task=profile",),
)  # fmt: skip


@pytest.fixture(scope="module")
def planned(request):
    from mvit.parent.request.check import parse

    config = parse(raw_config())
    return config, make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)


def key_of(planned, *, config=None, plan=None, library=None, environment=None, cores=2, rank=0):
    return graph_key(
        config or planned[0], plan or planned[1], library=library, environment=environment or {}, cores=cores, rank=rank
    )  # fmt: skip


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value


def with_leaf(section: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**section, head: with_leaf(section[head], rest, value) if rest else value}


def is_named(path: str) -> bool:
    """Whether the key, or a section that it is in, is named as one that shapes no graph."""
    parts = path.split(".")
    return any(".".join(parts[: index + 1]) in NOT_IN_A_GRAPH for index in range(len(parts)))


@pytest.mark.parametrize("overrides", KINDS, ids=" ".join)
def test_every_value_of_a_configuration_is_in_the_key_or_named(configured, overrides):
    content = configured(*overrides).model_dump(mode="json")
    for path, _ in leaves(content):
        same = shaping(with_leaf(content, path, "another")) == shaping(content)
        assert same == is_named(path), path


def test_every_name_that_is_left_out_exists(configured):
    paths = {path for kind in KINDS for path, _ in leaves(configured(*kind).model_dump(mode="json"))}
    missing = {name for name in NOT_IN_A_GRAPH if not any(p == name or p.startswith(f"{name}.") for p in paths)}
    assert not missing


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=x_small",), ("model.kernels=plain",), ("train.label_smoothing=0.2",), ("train.clip_norm=3",),
        ("train.ema_momentum=0.01",), ("train.freeze=[stem.*]",), ("optimizer.beta2=0.9",),
        ("optimizer.layer_decay=0.5",),
        ("optimizer=lion",), ("data.mean=[0,0,0]",), ("augment=mixup_cutmix",), ("precision=fp16",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_shapes_a_graph_changes_the_key(planned, configured, overrides):
    assert key_of(planned, config=configured(*overrides)) != key_of(planned)


@pytest.mark.parametrize(
    "overrides",
    [
        *("optimizer.lr=0.1", "optimizer.weight_decay=0.5", "seed=7", "train.epochs=2", "name=other"),
        *("schedule=constant", "launch=slurm"),
    ],
)
def test_inputs_of_a_graph_do_not_change_the_key(planned, configured, overrides):
    assert key_of(planned, config=configured(overrides)) == key_of(planned)


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("predict data.images=[x]", "data.images=[y]"),
        ("predict data.images=[x]", "task.top=1"),
        ("predict data.images=[x]", "task.output=y.csv"),
        ("predict data.images=[x]", "task.strict=true"),
        ("export", "task.formats=[onnx]"),
        ("export", "task.tolerance=1e-3"),
        ("export", "task.dynamic_batch=false"),
    ],
)
def test_what_is_predicted_and_how_it_is_written_do_not_change_the_key(planned, configured, task, change):
    words = (*f"task={task}".split(), "task.checkpoint=x")
    one, other = configured(*words), configured(*words, change)
    assert one != other
    assert key_of(planned, config=one) == key_of(planned, config=other)


def test_every_shape_and_count_of_the_plan_changes_the_key(planned):
    plan = planned[1]
    graph = plan.graphs[0].model_copy(update={"images": (33, 64, 64, 3)})
    changes = {
        "world_size": 2, "nodes": 2, "device": "Ascend", "threads": 7, "jit_level": "O1", "accumulation": 3,
        "num_classes": 11, "graphs": (graph, *plan.graphs[1:]),
        "kernels": plan.kernels.model_copy(update={"isa": "neon"}),
    }  # fmt: skip
    assert set(changes) == set(PLANNED)
    found = {key_of(planned, plan=plan.model_copy(update={name: value})) for name, value in changes.items()}
    assert len(found | {key_of(planned)}) == len(changes) + 1
    assert key_of(planned, plan=plan.model_copy(update={"peak_lr": 0.5, "total_steps": 9})) == key_of(planned)


def test_every_source_of_a_worker_changes_the_key(tmp_path):
    package = shutil.copytree(PACKAGE, tmp_path / "mvit", ignore=shutil.ignore_patterns("__pycache__"))
    before = sources_digest(package)
    sources = sorted(package.rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        text = source.read_text()
        source.write_text(f"{text}\n")
        assert (sources_digest(package) == before) == (source.relative_to(package).parts[0] in ("cli", "parent"))
        source.write_text(text)
    sources[-1].rename(sources[-1].with_name("renamed.py"))
    assert sources_digest(package) != before


def test_kernels_versions_cpu_cores_rank_and_environment_change_the_key(planned, tmp_path, monkeypatch):
    one, other = tmp_path / "one.so", tmp_path / "other.so"
    one.write_bytes(b"1")
    other.write_bytes(b"1")
    found = [
        key_of(planned), key_of(planned, library=one), key_of(planned, library=other), key_of(planned, cores=1),
        key_of(planned, rank=1), key_of(planned, environment={"ONEDNN_MAX_CPU_ISA": "AVX2"}),
        key_of(planned, environment={"MS_DEV_RUNTIME_CONF": "inline:False"}),
    ]  # fmt: skip
    one.write_bytes(b"2")
    found.append(key_of(planned, library=one))
    for name in ("_cpu", "_library_digest"):
        with monkeypatch.context() as patch:
            patch.setattr(keys, name, lambda *_: "another")
            found.append(key_of(planned))
    with monkeypatch.context() as patch:
        patch.setattr(keys.platform, "python_version", lambda: "3.99.0")
        found.append(key_of(planned))
    assert len(set(found)) == len(found)
    assert key_of(planned, environment={"MS_SCHED_PORT": "20001", "HOME": "/x"}) == found[0]


def test_mindspore_and_the_cpu_are_told_by_more_than_a_version():
    assert len(keys._library_digest("mindspore")) == 64
    assert any(line.startswith(("flags", "Features")) for line in keys._cpu())
    assert Path(keys.PACKAGE / "worker" / "step_graphs.py").is_file()
