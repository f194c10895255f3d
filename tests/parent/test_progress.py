"""What a person sees of a run: a bar or a stage on a terminal, plain lines elsewhere."""

import io
from contextlib import closing

import pytest
from rich.console import Console
from rich.live_render import LiveRender

from mvit import console as lines
from mvit.data import dataset
from mvit.parent import progress
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.progress import ProgressView
from mvit.parent.report.estimate import PastRuns, Work
from mvit.parent.report.past_run import PastRun
from mvit.rundir.frozen import Run
from mvit.rundir.journal import Journal
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import TrainResult
from mvit.rundir.status import Stage, WorkerStatus, write_status
from mvit.rundir.stop import StopReason, write_stop

GRAPHS = {"train": 9.0, "evaluate": 3.0}


@pytest.fixture
def run(configured, tmp_path):
    config = configured("train.epochs=10")
    return Run(
        create_run_dir(tmp_path / "runs" / "x" / "20260101-000000-abcd"),
        config,
        make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts),
    )


@pytest.fixture
def journal(run):
    with closing(Journal(run.folder.journal)) as opened:
        yield opened


def past(**graphs):
    result = TrainResult(task="train", steps=1, metrics={}, graphs=graphs, compiled=1)
    return PastRuns(Work(steps=1, eval_steps=1, graphs=("train",)), (PastRun(result),) if graphs else ())


class Screen:
    """A console of some width, and the time, both set by the test."""

    def __init__(self, monkeypatch, *, is_terminal, width=100):
        monkeypatch.setenv("TERM", "xterm-256color")
        self.out, self.now = io.StringIO(), 100.0
        self.console = Console(file=self.out, force_terminal=is_terminal, width=width, highlight=False, soft_wrap=True)
        monkeypatch.setattr(lines, "console", self.console)
        monkeypatch.setattr(progress, "console", self.console)
        monkeypatch.setattr(progress, "clock", lambda: self.now)

    def look(self, view, stage, step=0, *, after=0.0, rank=0):
        """The workers say where they are; the view looks."""
        self.now += after
        fields = {"rank": rank, "host": "here", "pid": 1, "started": 1, "marks": 0, "error": None, "time": 0.0}
        write_status(view.folder.status / f"{rank}.json", WorkerStatus(stage=stage, step=step, **fields))
        view.look()
        return self.line(view)

    def line(self, view):
        with self.console.capture() as captured:
            self.console.print(LiveRender(view.line()))
        return captured.get()

    def plain(self, view, *args, **kwargs):
        self.look(view, *args, **kwargs)
        text = self.out.getvalue()
        self.out.truncate(self.out.seek(0))
        return text


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    return Screen(monkeypatch, is_terminal=True)


def test_compiling_shows_elapsed_time_and_what_past_runs_took(terminal, run):
    view = ProgressView(run, past=past(**GRAPHS))
    assert terminal.look(view, Stage.COMPILE) == "  compile  0:00 of about 0:12"
    assert terminal.look(view, Stage.COMPILE, after=7) == "  compile  0:07 of about 0:12"
    assert terminal.look(view, Stage.COMPILE, after=63) == "  compile  1:10, usually about 0:12"


@pytest.mark.parametrize("known", [{}, {"train": 9.0}])
def test_without_past_runs_of_all_graphs_there_is_no_estimate(terminal, run, known):
    view = ProgressView(run, past=past(**known))
    terminal.look(view, Stage.COMPILE)
    assert terminal.look(view, Stage.COMPILE, after=7) == "  compile  0:07"


def test_no_stage_before_the_first_step_tells_a_time_left(terminal, run):
    view = ProgressView(run, past=past(**GRAPHS))
    for stage in (Stage.START, Stage.JOIN, Stage.DATA, Stage.BUILD):
        terminal.look(view, stage)
        assert terminal.look(view, stage, after=2) == f"  {stage}  0:02"
    assert terminal.look(view, Stage.STEP) == "  step  0:00"
    assert "left" not in terminal.look(view, Stage.STEP, 1, after=5)


def test_stepping_shows_the_step_the_numbers_and_both_times(terminal, run, journal):
    view = ProgressView(run, past=past())
    terminal.look(view, Stage.STEP, 1, after=20)
    journal.metrics({"train/loss": 0.8123}, step=40, epoch=1)
    evaluation = {"val/acc1": 91.388, "val/loss": 0.5, "best/val_acc1": 91.388, "perf/images_per_s": 612.3}
    journal.metrics(evaluation, step=44, epoch=1)
    line = terminal.look(view, Stage.STEP, 101, after=50)
    assert run.plan.last_step == 440
    assert line.startswith("  step 101/440 ")
    assert line.endswith("loss 0.812  acc@1 91.39 %  img/s 612  1:10 elapsed  2:49 left")
    assert "━" in line
    assert len(line) <= 100
    evaluating = terminal.look(view, Stage.EVALUATE, 132, after=3)
    assert evaluating.startswith("  evaluate 132/440 ")
    assert evaluating.endswith(" left")


def test_a_resumed_run_counts_its_pace_from_where_it_goes_on(terminal, run):
    view = ProgressView(run, past=past())
    terminal.look(view, Stage.COMPILE)
    assert terminal.look(view, Stage.STEP, 0, after=10) == "  step  0:00"
    terminal.look(view, Stage.STEP, 400, after=10)
    assert terminal.look(view, Stage.STEP, 420, after=10).endswith(" 0:30 elapsed  0:10 left")


def test_another_attempt_begins_with_its_stages(terminal, run):
    view = ProgressView(run, past=past(**GRAPHS))
    terminal.look(view, Stage.STEP, 1)
    assert terminal.look(view, Stage.STEP, 40, after=10).endswith(" left")
    assert terminal.look(view, Stage.COMPILE, after=10) == "  compile  0:00 of about 0:12"
    terminal.look(view, Stage.STEP, 41, after=12)
    assert terminal.look(view, Stage.STEP, 51, after=10).endswith(" 6:29 left")


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_the_line_fits_the_terminal(monkeypatch, run, width):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen(monkeypatch, is_terminal=True, width=width)
    view = ProgressView(run, past=past(**GRAPHS))
    view.latest = {"train/loss": 10.123, "val/acc1": 100.0, "perf/images_per_s": 12345.0}
    for line in (
        screen.look(view, Stage.COMPILE),
        screen.look(view, Stage.STEP, 1),
        screen.look(view, Stage.STEP, 101, after=9999),
    ):
        assert "\n" not in line
        assert len(line) <= width


def test_the_slowest_worker_is_shown(terminal, run):
    view = ProgressView(run, past=past())
    terminal.look(view, Stage.STEP, 7, rank=0)
    assert "step 5/440" in terminal.look(view, Stage.STEP, 5, rank=1)


def test_no_color_is_honoured_and_colours_are_for_terminals(monkeypatch, run):
    def drawn(*, is_terminal):
        screen = Screen(monkeypatch, is_terminal=is_terminal)
        view = ProgressView(run, past=past())
        screen.look(view, Stage.STEP, 1)
        return screen.look(view, Stage.STEP, 11, after=1)

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in drawn(is_terminal=True)
    assert "\x1b[" not in drawn(is_terminal=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in drawn(is_terminal=True)


def test_without_a_terminal_there_are_plain_lines(monkeypatch, run, journal):
    screen = Screen(monkeypatch, is_terminal=False)
    with ProgressView(run, past=None) as view:
        assert screen.plain(view, Stage.JOIN) == ""
        assert screen.plain(view, Stage.DATA) == "  data\n"
        assert screen.plain(view, Stage.COMPILE, after=1) == "  compile\n"
        assert screen.plain(view, Stage.COMPILE, after=9) == ""
        assert screen.plain(view, Stage.COMPILE, after=2) == "  compile 11 s\n"
        assert screen.plain(view, Stage.STEP, 3, after=2) == ""
        journal.metrics({"train/loss": 0.5}, step=40, epoch=1)
        assert screen.plain(view, Stage.STEP, 40, after=9) == "  step 40/440 loss 0.500\n"
    assert screen.out.getvalue() == ""


def test_events_and_evaluations_are_lines_of_their_own(monkeypatch, run, journal, capsys):
    screen = Screen(monkeypatch, is_terminal=False)
    view = ProgressView(run, past=None)
    journal.event("compiled", graph="train", seconds=9.04, cached=False)
    journal.event("resumed", step=40, damaged=["step-00000044 is damaged"])
    journal.event("checkpoint_failed", step=41, reason="No space left on device")
    journal.metrics({"train/loss": 0.25}, step=44, epoch=1)
    numbers = {"val/acc1": 91.388, "val/ema_acc1": 92.0, "val/loss": 0.5, "best/val_acc1": 92.0}
    journal.metrics(numbers, step=44, epoch=1)
    write_stop(run.folder, StopReason(kind="pause"))
    view.look()
    assert screen.out.getvalue().splitlines() == [
        "mvit: stopping, after a checkpoint of the current step; press Ctrl-C again to stop immediately",
        "  compiled train in 9.0 s",
        "  resumed after step 40",
        "  skipped: step-00000044 is damaged",
        "  epoch   1  loss 0.2500  val loss 0.5000  acc@1 91.39 %  EMA 92.00 %  best 92.00 %",
    ]
    expected = "mvit: the checkpoint of step 41 was not written: No space left on device\n"
    assert capsys.readouterr().err == expected


def test_verbose_shows_what_the_processes_write_from_now_on_line_by_line(run, monkeypatch):
    verbose = Run(run.folder, run.config.model_copy(update={"verbose": True}), run.plan)
    logs = [run.folder.attempt_logs(attempt) / "worker_0.log" for attempt in (1, 2)]
    for log in logs:
        log.parent.mkdir(parents=True)
    logs[0].write_text("of an earlier attempt\n")
    screen = Screen(monkeypatch, is_terminal=False)
    quiet, view = ProgressView(run, past=None), ProgressView(verbose, past=None)
    logs[1].write_bytes(b"first\nsecond, \xff")
    view.look()
    with logs[1].open("a") as file:
        file.write(" and whole\n")
    view.look()
    quiet.look()
    assert screen.out.getvalue().splitlines() == ["  worker_0 | first", "  worker_0 | second, \ufffd and whole"]
