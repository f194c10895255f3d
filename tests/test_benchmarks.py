"""The step benchmark: what it compares with what, and the pages that are generated from its results."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks import step, tables
from benchmarks.results import (
    Case,
    Group,
    Measured,
    Roof,
    RooflineResult,
    ScalingResult,
    SeedsResult,
    StepResult,
    Way,
    read,
    write,
)
from tests.conftest import CHECKOUT

CASE = Case(model="xx_small", batch=16, image_size=256)
FACTS: dict[str, Any] = {"date": "2026-11-24T10:00:00Z", "commit": "abc", "cpu": "A <CPU>"}
SMALL = Case(model="xx_small", batch=32, image_size=64)


def measured(name: str, *train_ms: float, first_s: float = 1.0, peak_mb: float = 100.0) -> Measured:
    return Measured(
        name=name,
        versions={"a library": "1.0"},
        isa="avx2",
        parameters=1272024,
        steps=5,
        first_s=first_s,
        peak_mb=peak_mb,
        train_ms=train_ms,
        evaluate_ms=tuple(ms / 2 for ms in train_ms),
    )


def group(*subjects: Measured, case: Case = CASE) -> Group:
    return Group(case=case, load_before=0.1, load_after=1.9, other_cores=0.05, subjects=subjects)


def result(*groups: Group, date: str = "2026-11-24T10:00:00Z", cpu: str = "A <CPU>") -> StepResult:
    return StepResult(
        date=date, commit="abc", cpu=cpu, isa=("avx2", "avx512f"), cores=2, threads=2, rounds=3, groups=groups
    )


TWO_GROUPS = result(
    group(measured("mvit-fused", 100, 200, 100), measured("timm-eager", 200, 400, 150)),
    group(measured("mvit-fused", 400, 400, 400, peak_mb=120), measured("mindcv-stock", 4000, 4400, 3600)),
    group(measured("mvit-fused", 10, 10, 10), case=SMALL),
)


def row(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout without results."""
    (tmp_path / "docs").mkdir()
    for page in ("docs/performance.md", "README.md"):
        (tmp_path / page).write_text(f"above\n\n{tables.BEGIN}\n{tables.END}\n\nbelow\n")
    (tmp_path / "experiments/results").mkdir(parents=True)
    monkeypatch.setattr(tables, "CHECKOUT", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "experiments/results")
    return tmp_path


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["tables.py", *arguments])
    with pytest.raises(SystemExit) as end:
        tables.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_the_checked_in_pages_are_what_the_checked_in_results_give():
    wanted = tables.pages(CHECKOUT, read(tables.RESULTS))
    stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    assert not stale, f"run: {tables.COMMAND}"


def test_a_ratio_is_between_turns_of_the_same_round_of_the_same_group():
    assert TWO_GROUPS.ratios(CASE, "timm-eager", "train", to="mvit-fused") == [2, 2, 1.5]
    assert TWO_GROUPS.ratios(CASE, "mindcv-stock", "evaluate", to="mvit-fused") == [10, 11, 9]
    assert TWO_GROUPS.ratios(CASE, "timm-eager", "train", to="mindcv-stock") == []
    assert TWO_GROUPS.ratios(SMALL, "timm-eager", "train", to="mvit-fused") == []


def test_a_table_holds_a_case_and_the_rounds_of_all_its_groups():
    large, small = tables.step_tables(TWO_GROUPS).split("| xx_small, 32x64x64")
    assert row(large, "timm eager") == [
        *("timm eager", "200 (150-400)", "80.0", "2.00 (1.50-2.00)"),
        *("100 (75-200)", "160.0", "2.00 (1.50-2.00)", "1.0", "100"),
    ]
    ours = row(large, "mvit fused")
    assert (ours[1], ours[3], ours[-1]) == ("300 (100-400)", "1.00 (1.00-1.00)", "120")
    assert row(small, "mvit fused")[1] == "10 (10-10)"
    assert "timm" not in small


def test_what_is_held_to_avx2_has_a_table_of_its_own_and_ratios_to_mvit_in_it():
    fused, held, timm = "mvit-fused", "mvit-fused-avx2", "timm-channels-last-avx2"
    text = tables.step_tables(result(group(measured(fused, 10), measured(held, 20), measured(timm, 30))))
    assert text.count("| xx_small, 16x256x256") == 2
    assert row(text, "mvit fused, AVX2")[3] == "1.00 (1.00-1.00)"
    assert row(text, "timm channels-last, AVX2")[3] == "1.50 (1.50-1.50)"


def test_a_subject_without_the_reference_beside_it_has_no_ratio():
    text = tables.step_tables(result(group(measured("timm-eager", 30), measured("timm-compiled", 20))))
    assert row(text, "timm compiled")[1:4] == ["20 (20-20)", "800.0", "-"]


def test_without_results_the_pages_say_so(checkout, monkeypatch):
    assert run(monkeypatch, "--check") == 1
    assert run(monkeypatch) == run(monkeypatch, "--check") == 0
    assert tables.NONE in (checkout / "docs/performance.md").read_text()
    assert not (checkout / "docs/step.svg").exists()


def test_pages_are_stale_until_they_are_generated_anew(checkout, monkeypatch, capsys):
    assert run(monkeypatch) == 0
    (checkout / "experiments/results/step-a.json").write_text(TWO_GROUPS.model_dump_json())
    assert run(monkeypatch, "--check") == 1
    assert (
        "docs/performance.md is not what the results give; run: python benchmarks/tables.py" in capsys.readouterr().out
    )
    assert run(monkeypatch) == run(monkeypatch, "--check") == 0
    page = (checkout / "docs/performance.md").read_text()
    assert page.startswith("above\n")
    assert page.endswith("\nbelow\n")
    assert tables.NONE not in page
    assert "(docs/step.svg)" in (checkout / "README.md").read_text()


def test_every_machine_has_a_section_and_the_newest_the_picture(checkout):
    old, new = TWO_GROUPS, result(*TWO_GROUPS.groups, date="2026-11-25T10:00:00Z", cpu="Another")
    held = result(group(measured("mvit-fused-avx2", 100, 200, 100)), date="2026-11-26T10:00:00Z", cpu="Held")
    pages = tables.pages(checkout, [new, old, held])
    assert pages[checkout / "docs/performance.md"].count("| xx_small, 16x256x256") == 3
    assert "Another" in pages[checkout / "docs/step.svg"]


def test_the_picture_has_a_bar_per_subject_of_the_largest_images(checkout):
    root = ET.fromstring(tables.pages(checkout, [TWO_GROUPS])[checkout / "docs/step.svg"])
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Training, images/s, 256x256 pixels: A <CPU>, 2 threads" in texts
    assert {"mvit fused", "timm eager", "mindcv stock", "53.3", "80.0", "4.0"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + 3


def test_a_result_reads_as_it_was_written_and_another_form_is_refused():
    assert StepResult.model_validate_json(TWO_GROUPS.model_dump_json()) == TWO_GROUPS
    with pytest.raises(ValidationError):
        StepResult.model_validate({**TWO_GROUPS.model_dump(), "form": 2})


@pytest.mark.parametrize(("at_once", "sizes"), [(3, [3] * 6), (2, [2] * 12), (99, [13])])
def test_the_first_subject_is_in_every_group_and_every_other_one_in_one(at_once, sizes):
    subjects = list(step.SUBJECTS)
    groups = step.grouped(subjects, at_once=at_once)
    assert [len(group) for group in groups] == sizes
    assert all(group[0] is subjects[0] for group in groups)
    assert [subject for group in groups for subject in group[1:]] == subjects[1:]
    assert step.grouped(subjects[:1], at_once=at_once) == [subjects[:1]]


def test_what_is_held_to_avx2_takes_turns_with_each_other():
    groups = step.grouped(step.SUBJECTS, at_once=3)
    held = [{subject.name for subject in group if subject.name.endswith("-avx2")} for group in groups]
    assert held == [{"mvit-fused-avx2", "timm-channels-last-avx2"}, *[set()] * 5]


def test_every_subject_has_a_file():
    assert all(subject.file.exists() for subject in step.SUBJECTS)


@pytest.mark.parametrize("text", ["xx_small", "huge:16x256", "small:0x256", "small:16x256x256"])
def test_a_case_that_is_none_is_refused(text, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["step.py", "--cases", text])
    with pytest.raises(SystemExit) as end:
        step.main()
    assert end.value.code == 2
    assert f"'{text}' must be a model, a batch and a side, such as xx_small:16x256" in capsys.readouterr().err


def test_a_subject_without_its_interpreter_is_refused_with_the_option_to_give(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["step.py", "--subjects", "mvit-fused", "mindcv-stock"])
    with pytest.raises(SystemExit) as end:
        step.main()
    assert end.value.code == 2
    assert "mindcv-stock needs --mindcv PYTHON" in capsys.readouterr().err


def test_the_table_of_seeds_has_the_p_of_a_difference():
    few = ("train.epochs=3",)
    same = SeedsResult(acc1={"fused": (99.0, 98.0, 97.0), "plain": (97.0, 98.0, 99.0)}, overrides=few, **FACTS)
    text = tables.seeds_table(same)
    assert row(text, "mvit plain") == ["mvit plain", "3", "98.00", "1.00", "97.00", "99.00"]
    assert "| the default job train.epochs=3 |" in text
    assert "p = 1." in text
    other = SeedsResult(acc1={"fused": (99.0, 98.9, 98.8), "plain": (97.0, 96.9, 97.1)}, overrides=few, **FACTS)
    assert "p = 2e-05." in tables.seeds_table(other)


def test_scaling_compares_ways_of_the_same_round_and_models_more_workers():
    ways = (
        Way(workers=1, threads=1, batch=32, step_ms=(100, 200), all_reduce_pct=(0, 0)),
        Way(workers=1, threads=2, batch=32, step_ms=(50, 100), all_reduce_pct=(0, 0)),
        Way(workers=2, threads=1, batch=32, step_ms=(50, 125), all_reduce_pct=(10, 10)),
        Way(workers=2, threads=1, batch=64, step_ms=(110, 220), all_reduce_pct=(10, 10)),
    )
    text = tables.scaling_tables(ScalingResult(case=SMALL, ways=ways, **FACTS))
    strong = next(line for line in text.splitlines() if line.startswith("| 2 workers") and " 32 " in line)
    assert "| 1.80 (1.60-2.00)" in strong
    assert "| 0.90 (0.80-1.00)" in strong
    # 148.5 ms of computing, and a sum of 16.5 ms times 2 * 15 / 16.
    assert row(text, "16") == ["16", "179.4", "2853", "82.8 %"]
    assert row(text, "8") == ["8", "177.4", "1443", "83.7 %"]
    assert "A model, not a measurement" in text


def test_the_roof_is_what_takes_longer_multiplying_or_moving():
    rates = {"gflop_per_s": (100, 90, 110), "gb_per_s": (10, 10, 10)}
    roofs = (
        Roof(case=CASE, gflop=20, operators_mb={"a": 1000, "b": 500}, step_ms=(400, 500, 400), **rates),
        Roof(case=SMALL, gflop=1, operators_mb={"a": 100}, step_ms=(40, 40, 40), **rates),
    )
    text = tables.roofline_table(RooflineResult(threads=2, roofs=roofs, **FACTS))
    cells = ["20.0", "1.50", "200", "150", "200", "350", "400 (400-500)", "50 %"]
    assert row(text, CASE.label) == [CASE.label, *cells]
    assert row(text, SMALL.label)[-1] == "25 %"


def test_results_of_every_benchmark_are_read_again(tmp_path):
    written = {
        "step-a": TWO_GROUPS,
        "seeds-a": SeedsResult(acc1={"fused": (99.0,)}, overrides=(), **FACTS),
        "scaling-a": ScalingResult(case=SMALL, ways=(Way(workers=1, threads=1, batch=32),), **FACTS),
        "roofline-a": RooflineResult(threads=2, roofs=(), **FACTS),
    }
    for name, one in written.items():
        write(one, tmp_path / f"{name}.json")
    assert read(tmp_path) == list(written.values())
