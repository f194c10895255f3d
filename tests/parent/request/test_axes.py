"""What is typed for several runs: lists, intervals, files."""

import pytest

from mvit.errors import ConfigError
from mvit.parent.request.axes import Axis, read_space, rows_of
from tests.conftest import COMPOSER


def space(*overrides):
    return read_space(overrides, COMPOSER)


def test_lists_make_every_combination_the_last_axis_changing_first():
    found = space("train.epochs=2", "optimizer.lr=1e-3,2e-3", "++seed=range(1,3)")
    assert found.fixed == ("train.epochs=2",)
    assert [trial[1:] for trial in found.combinations()] == [
        ["optimizer.lr=0.001", "seed=1"],
        ["optimizer.lr=0.001", "seed=2"],
        ["optimizer.lr=0.002", "seed=1"],
        ["optimizer.lr=0.002", "seed=2"],
    ]


def test_what_is_typed_later_replaces_what_came_first():
    assert space("seed=1,2", "seed=3").combinations() == [["seed=3"]]
    assert space("seed=3", "seed=1,2").axes == (Axis("seed", ("1", "2")),)


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("a=interval(0.1,1)", Axis("a", low=0.1, high=1.0)),
        ("a=tag(log,interval(1e-4,1e-2))", Axis("a", low=1e-4, high=1e-2, is_log=True)),
        ("a=int(interval(8,64))", Axis("a", low=8.0, high=64.0, is_int=True)),
        ("a=choice(x,y)", Axis("a", ("x", "y"))),
        ("a=[1,2],[3]", Axis("a", ("[1,2]", "[3]"))),
    ],
)
def test_axes_are_hydras(text, axis):
    assert space(text).axes == (axis,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a=range(3,3)", "its range has no values"),
        ("a=interval(2,1)", "the lower bound must be below the upper one"),
        ("a=tag(log,interval(0,1))", "a logarithmic interval must begin above 0"),
        ("sweep.slots=1,2", "is for all trials"),
        ("a=tag(lg,interval(1,2))", "tag lg means nothing here"),
        ("a=tag(log,choice(1,2))", "tag log means nothing here"),
    ],
)
def test_an_axis_without_values_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        space(text)


def test_numbers_that_are_drawn_are_short_and_within_their_bounds():
    axis = Axis("a", low=0.12344, high=1.0)
    assert axis.text(0.123441) == "0.12344"
    assert axis.text(0.98765432) == "0.9877"


def test_what_is_added_to_a_sweep_joins_its_lists():
    joined = space("seed=1,2", "train.epochs=3").joined(space("seed=2,3", "train.epochs=4,5"))
    assert [(axis.key, axis.values) for axis in joined.axes] == [
        ("seed", ("1", "2", "3")),
        ("train.epochs", ("4", "5")),
    ]
    assert joined.fixed == ()


def test_a_file_has_a_column_for_each_key_and_a_row_for_each_trial(tmp_path):
    file = tmp_path / "trials.csv"
    file.write_text('optimizer.lr,model,model.depths\n1e-3,x_small,"[1,1,1]"\n\n2e-3,,\n')
    assert rows_of(file, fixed=["seed=1"]) == [
        ["seed=1", "optimizer.lr=1e-3", "model=x_small", "model.depths=[1,1,1]"],
        ["seed=1", "optimizer.lr=2e-3"],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed,train.epochs\n1,2\n3\n", "is torn: line 3 has 1 values, and the header 2 keys"),
        ("seed\n", "has no trials"),
        ("seed,seed\n1,2\n", "has a column without a key, or a key twice"),
        ("sweep.slots\n1\n", "has the column sweep.slots, which is for all trials"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path, text, said):
    file = tmp_path / "trials.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as refused:
        rows_of(file, fixed=[])
    assert len(refused.value.problems) == 1
