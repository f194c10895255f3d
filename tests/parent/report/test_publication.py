"""Numbers in pages come from runs, and from nowhere else."""

import shutil

import pytest

from mvit.errors import RunDirError
from mvit.files import read_json
from mvit.parent.report.publication import BEGIN, END, pages, publish
from mvit.parent.report.record import read_records
from mvit.parent.report.results import jobs_of
from tests.conftest import CHECKOUT


def jobs(*folders):
    return jobs_of(list(read_records([folder.path for folder in folders])))


def test_the_pages_of_the_checkout_are_those_that_the_results_give():
    stale = [path.name for path, text in pages(CHECKOUT).items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "edited by hand, or the results changed: run python -m mvit publish"


def test_a_job_is_published_with_its_runs_and_spread(admissible, pages_root):
    folders = [admissible(f"000{seed}", f"seed={seed}", acc=acc) for seed, acc in ((1, 98.0), (2, 99.0), (3, 98.5))]
    changed = publish(jobs(*folders), name="seeds", root=pages_root)
    names = {str(path.relative_to(pages_root)) for path in changed}
    assert names == {"experiments/results/runs-seeds.json", "README.md", "docs/results.md", "experiments/seeds.yaml"}
    (job,) = read_json(pages_root / "experiments/results/runs-seeds.json")["jobs"]
    assert (job["n"], job["accuracies"], job["runs"]) == (3, [98.0, 99.0, 98.5], ["0001", "0002", "0003"])
    page = (pages_root / "README.md").read_text()
    assert page.startswith(f"before\n{BEGIN}\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "98.50" in page
    assert "0.50" in page
    assert "640.00" in page
    assert "\n# found:    98.50 % (n=3, std 0.50), " in (pages_root / "experiments/seeds.yaml").read_text()
    again = publish(jobs(*folders), name="seeds", root=pages_root)
    assert again == [pages_root / "experiments/results/runs-seeds.json"]


def test_what_is_published_of_averaged_weights_is_their_spread(averaged, pages_root):
    publish(jobs(*averaged), name="seeds", root=pages_root)
    (job,) = read_json(pages_root / "experiments/results/runs-seeds.json")["jobs"]
    assert (job["row"]["acc@top1"], job["accuracies"]) == ("91.10", [91.0, 91.2, 91.1])
    assert "\n# found:    91.10 % (n=3, std 0.10), " in (pages_root / "experiments/seeds.yaml").read_text()


def test_a_fork_is_not_published(admissible, pages_root):
    with pytest.raises(RunDirError, match="aaaa may not be believed"):
        publish(jobs(admissible(fork=True)), name="a", root=pages_root)


def test_the_most_accurate_row_is_the_first_one(admissible, pages_root):
    publish(jobs(admissible("0001", "seed=1", acc=97.0)), name="a", root=pages_root)
    publish(jobs(admissible("0002", "seed=2", acc=99.0)), name="b", root=pages_root)
    page = (pages_root / "README.md").read_text()
    assert page.index("99.00") < page.index("97.00")


def test_a_number_that_was_edited_by_hand_is_found(admissible, pages_root):
    publish(jobs(admissible()), name="seeds", root=pages_root)
    page = pages_root / "README.md"
    page.write_text(page.read_text().replace("98.00", "99.00"))
    assert [path.name for path, text in pages(pages_root).items() if path.read_text() != text] == ["README.md"]
    header = pages_root / "experiments/seeds.yaml"
    header.write_text(header.read_text().replace("98.00", "99.00"))
    stale = [path.name for path, text in pages(pages_root).items() if path.read_text() != text]
    assert stale == ["README.md", "seeds.yaml"]


def test_a_speed_beside_other_load_is_not_shown(admissible, pages_root):
    folder = admissible()
    folder.attempt_logs(2).mkdir()  # a restart
    publish(jobs(folder), name="one", root=pages_root)
    page = (pages_root / "README.md").read_text()
    assert "98.00" in page
    assert "640" not in page


def test_what_may_not_be_believed_is_refused_and_changes_nothing(admissible, pages_root):
    folder = admissible()
    folder.journal.write_text("edited\n")
    before = {path: path.read_text() for path in pages_root.rglob("*.md")}
    with pytest.raises(RunDirError, match="aaaa may not be believed; python -m mvit check says why"):
        publish(jobs(folder), name="one", root=pages_root)
    assert {path: path.read_text() for path in pages_root.rglob("*.md")} == before
    assert list((pages_root / "experiments/results").iterdir()) == []


def test_a_page_without_a_place_for_tables_is_named(pages_root):
    shutil.copy(pages_root / "experiments/other.yaml", pages_root / "README.md")
    with pytest.raises(ValueError, match="a page lacks <!-- generated"):
        pages(pages_root)
