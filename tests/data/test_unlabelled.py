"""Image files that a person names."""

import errno
import io
import os
import sys

import pytest

from mvit.config import FilesData
from mvit.data import dataset
from mvit.data.unlabelled import Unlabelled, absolute_name
from mvit.errors import DatasetError
from tests.conftest import open_data, raw_config


def data_of(*images, class_names=("cat", "dog")) -> FilesData:
    raw = raw_config("task=predict", "task.checkpoint=x", "data.images=x")["data"]
    return FilesData(**{**raw, "images": images, "class_names": class_names})


def names_of(data: FilesData, room) -> list[str]:
    survey = Unlabelled(data).survey()
    assert survey.listing
    return [f"/{path}".removeprefix(f"{room}/") for path in survey.listing.val.paths]


@pytest.fixture
def room(tmp_path, monkeypatch):
    for name in (
        "b/2.PNG",
        "b/1.jpg",
        "b/deep/0.bmp",
        "b/.hidden/9.jpg",
        "b/.9.jpg",
        "b/notes.txt",
        "a.jpg",
        "odd[1].jpg",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_images_sorted_without_hidden_ones(room):
    assert names_of(data_of("b"), room) == ["b/1.jpg", "b/2.PNG", "b/deep/0.bmp"]


def test_files_patterns_and_folders_keep_their_order_and_each_file_counts_once(room):
    assert names_of(data_of("a.jpg", "b/*", f"{room}/a.jpg", "b"), room) == [
        "a.jpg",
        "b/1.jpg",
        "b/2.PNG",
        "b/deep/0.bmp",
    ]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(room):
    assert names_of(data_of("odd[1].jpg"), room) == ["odd[1].jpg"]


def test_a_file_that_is_named_may_have_any_ending(room):
    assert names_of(data_of("b/notes.txt"), room) == ["b/notes.txt"]


def test_standard_input_gives_a_path_a_line_and_may_name_what_is_missing(room, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a.jpg\n\nmissing file.jpg\n"))
    assert names_of(data_of("-"), room) == ["a.jpg", "missing file.jpg"]


def test_paths_of_standard_input_are_known_from_the_index_and_their_files_are_looked_at_again(room, monkeypatch):
    data = data_of("-")
    monkeypatch.setattr(sys, "stdin", io.StringIO("b/1.jpg\na.jpg\nmissing.jpg\n"))
    survey, index = dataset.survey(data), room / "data.npz"
    survey.write_index(index)
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "stdin", None)
    assert dataset.survey_of_index(data, facts=survey.facts, index=index) == survey
    (room / "a.jpg").write_bytes(b"another image")
    again = dataset.survey_of_index(data, facts=survey.facts, index=index)
    assert again
    assert again.facts.fingerprint != survey.facts.fingerprint
    assert dataset.survey_of_index(data_of("b"), facts=survey.facts, index=index) is None


@pytest.mark.parametrize("name", ["b", "b/*.jpg", "odd[1].jpg", "-"])
def test_an_absolute_name_names_the_same_from_any_directory(room, monkeypatch, name):
    """Also where the directory's name looks like a pattern."""
    (room / "x[1]").mkdir()
    (room / "b").rename(room / "x[1]/b")
    (room / "odd[1].jpg").rename(room / "x[1]/odd[1].jpg")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{room}/a.jpg\n"))
    monkeypatch.chdir(room / "x[1]")
    absolute = absolute_name(name)
    monkeypatch.chdir("/")
    expected = {
        "b": ["x[1]/b/1.jpg", "x[1]/b/2.PNG", "x[1]/b/deep/0.bmp"],
        "b/*.jpg": ["x[1]/b/1.jpg"],
        "odd[1].jpg": ["x[1]/odd[1].jpg"],
        "-": ["a.jpg"],
    }
    assert names_of(data_of(absolute), room) == expected[name]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere.jpg", "data.images: 'nowhere.jpg' does not exist; name a file, a folder or a pattern"),
        ("b/.hidden/*.gif", "data.images: 'b/.hidden/*.gif' holds no image: files end in"),
    ],
)
def test_a_name_without_images_is_refused(room, name, problem):
    with pytest.raises(DatasetError) as error:
        Unlabelled(data_of(name)).survey()
    assert str(error.value.problem).startswith(problem)


def test_a_worker_opens_the_files_that_were_surveyed(room):
    train, val = open_data(data_of("b", class_names=("cat", "dog", "fish")))
    assert len(train.labels) == 0
    assert [val.sample(index).name for index in range(len(val.labels))] == [
        f"{room}/b/1.jpg",
        f"{room}/b/2.PNG",
        f"{room}/b/deep/0.bmp",
    ]


def test_links_are_followed_into_each_folder_once(room):
    (room / "links/deep").mkdir(parents=True)
    (room / "links/b").symlink_to(room / "b")
    (room / "links/deep/up").symlink_to(room / "links")
    assert names_of(data_of("links"), room) == ["links/b/1.jpg", "links/b/2.PNG", "links/b/deep/0.bmp"]


def test_a_folder_that_cannot_be_read_is_not_left_out(room, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError, match="deep"):
        Unlabelled(data_of("b")).survey()
