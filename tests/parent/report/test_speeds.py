from mvit.data.dataset import survey
from mvit.parent.plan import make_plan
from mvit.parent.report.profiles import operators
from mvit.parent.report.speeds import remarks, speeds
from mvit.rundir.frozen import Run
from mvit.rundir.measured import Measured
from mvit.rundir.paths import RunDir
from mvit.rundir.profile import OperatorTime, Profile
from mvit.rundir.result import BenchmarkResult
from tests.effects.probes import HOST

STEP_MS = (30.0, 10.0, 20.0, 40.0, 50.0)


def benchmark(configured, tmp_path, *overrides: str) -> tuple[Run, BenchmarkResult]:
    config = configured("task=benchmark", *overrides)
    run = Run(RunDir(tmp_path), config, make_plan(config, host=HOST, facts=survey(config.data).facts))
    shapes = tuple(
        Measured(
            graph=graph.name,
            mode=graph.mode,
            batch_size=graph.images[0],
            image_size=graph.images[1],
            images=graph.images[0] * run.plan.world_size,
            step_ms=STEP_MS,
            compile_s=1.5,
            loss=1.0,
            other_load_pct=150.0,
        )
        for graph in run.plan.graphs
        if graph.images
    )
    return run, BenchmarkResult(task="benchmark", metrics={"perf/compile_cached": 1.0}, graphs={}, shapes=shapes)


def test_each_mode_has_a_graph_of_each_batch_size_and_resolution(configured, tmp_path):
    run, _ = benchmark(configured, tmp_path, "task.batch_sizes=[1,8]", "task.image_sizes=[32,64]")
    names = [graph.name for graph in run.plan.graphs]
    assert names[:4] == ["train_1x32", "train_1x64", "train_8x32", "train_8x64"]
    assert names[4:] == [name.replace("train", "inference") for name in names[:4]]
    assert run.plan.graphs[3].images == (8, 64, 64, 3)
    assert run.plan.num_classes == 1000


def test_a_speed_is_of_the_median_step_and_of_all_workers(configured, tmp_path):
    run, result = benchmark(configured, tmp_path, "topology=cpu_2", "task.batch_sizes=[8]")
    row = speeds(run, result).rows[0]
    assert (row["ms/step"], row["quartiles"], row["img/s"]) == ("30.00", "20.00-40.00", "533.33")
    assert (row["cards"], row["batch size"], row["load"]) == ("2 CPU", "8", "1.5 cores")
    assert row["graph compile"] == "1.5s (cached)"
    metrics = result.shapes[0].metrics()
    assert metrics["benchmark/train_8x256/step_ms_max"] == 50.0
    assert metrics["benchmark/train_8x256/images_per_s"] == 1e3 * 16 / 30.0


def test_the_published_rows_of_the_model_stand_below_and_are_said_to_be_of_other_hardware(configured, tmp_path):
    run, result = benchmark(configured, tmp_path, "model=xx_small", "task.modes=[train]", "task.batch_sizes=[64]")
    ours, *published = speeds(run, result).rows
    assert ours["source"] == "this run"
    assert [row["ms/step"] for row in published] == ["57.34", "53.52"]
    (remark,) = remarks(run)
    assert remark.startswith(
        "the published rows are of other hardware (8 Atlas 800T A2, 8 Ascend 910, this run: 1 CPU)"
    )


def test_a_model_without_a_published_speed_has_its_own_rows_alone(configured, tmp_path):
    run, result = benchmark(configured, tmp_path, "model=x_small")
    assert {row["source"] for row in speeds(run, result).rows} == {"this run"}
    assert list(remarks(run)) == ["no speed of x_small has been published"]


def test_the_shares_of_a_profile_add_up_to_the_step():
    times = tuple(OperatorTime(operator=f"op{n}", calls=2, ms=5.0, share_pct=5.0) for n in range(12))
    profile = Profile(
        graph="train_8x32", mode="train", steps=5, step_ms=100.0, unrecorded_step_ms=90.0, operators=times, phases={}
    )
    rows = operators(profile).rows
    assert [row["operator"] for row in rows[-2:]] == ["2 others", "between operators"]
    assert sum(float(row["share"].removesuffix(" %")) for row in rows) == 100.0
    assert sum(float(row["ms"]) for row in rows) == 100.0
