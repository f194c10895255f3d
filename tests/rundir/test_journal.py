"""What a resumed run computes a second time stands in its journal once."""

from contextlib import closing

from mvit.rundir.journal import Journal, JournalReader


def test_an_evaluation_that_is_repeated_without_a_speed_is_not_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with closing(Journal(path)) as journal:
        journal.metrics({"perf/compile_s": 1.0}, step=0, epoch=0)
        journal.metrics({"val/acc1": 90.0, "perf/images_per_s": 500.0}, step=20, epoch=1)
    with closing(Journal(path)) as journal:
        journal.metrics({"perf/compile_s": 2.0}, step=0, epoch=0)
        journal.metrics({"val/acc1": 90.0}, step=20, epoch=1)
        journal.metrics({"val/acc1": 91.0}, step=40, epoch=2)
    entries = [entry["metrics"] for entry in JournalReader(path).entries()]
    assert entries == [{"perf/compile_s": 1.0}, {"val/acc1": 90.0, "perf/images_per_s": 500.0}, {"val/acc1": 91.0}]
