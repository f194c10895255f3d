"""The table of operators in docs/ascend.md, against the MindSpore that is installed and the graphs of today."""

import re

import pytest

from benchmarks import operators
from benchmarks.operators import BEGIN, END, PAGE, compiled_graphs, operators_of, support_of
from tests.conftest import TINY

DUMP = """\
subgraph @main() {
  %0(CNode_1) = PrimFunc_Transpose(%para1_images, (I64(0), I64(3))) cnode_attrs: {checkpoint: Bool(1)}
      : (<Tensor[UInt8], (4, 8, 8, 3)>, <Tuple[Int64*4]>) -> (<Tensor[UInt8], (4, 3, 8, 8)>)
      # In file mvit/models/layers.py:20, 1~2, x = layer(x)
  %1(CNode_2) = PrimFunc_Cast(%0, I64(43)) {instance name: cast}
      : (<Tensor[UInt8], (4, 3, 8, 8)>, <Int64, NoShape>) -> (<Tensor[Float32], (4, 3, 8, 8)>)
  %2(CNode_3) = Load(%para7_w, UMonad[U])
      : (<Ref[Tensor[Float32]], (16)>, <UMonad, NoShape>) -> (<Tensor[Float32], (16)>)
  %3(out) = Conv2D(%1, %2) {instance name: conv2d}
      : (<Tensor[Float32], (4, 3, 8, 8)>, <Tensor[Float32], (16)>) -> (<Tensor[Float32], (4, 16, 8, 8)>)
}
"""


def rows():
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {name: (counts, (a, b, c, d)) for name, *counts, a, b, c, d in cells[1:]}


def test_a_dump_is_read(tmp_path):
    (tmp_path / "21_validate_0076.ir").write_text(DUMP)
    assert operators_of([tmp_path / "21_validate_0076.ir"]) == {
        ("Transpose", "uint8"): 1,
        ("Cast", "fp32, uint8"): 1,
        ("Conv2D", "fp32"): 1,
    }


def test_what_mindspore_has_for_a_card_is_what_the_table_says():
    table = rows()
    assert len(table) > 30
    for name, (_, marks) in table.items():
        has = support_of(name)
        assert marks == tuple("yes" if one else "" for one in (has.documented, has.aclnn, has.ge, has.aicpu)), name
        assert has.is_known, name


def test_an_unknown_operator_is_reported():
    assert not support_of("MobileVit").is_known


@pytest.mark.mindspore
@pytest.mark.timeout(300)
@pytest.mark.long
def test_the_graphs_of_today_have_no_other_operator(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = operators_of(compiled_graphs([*TINY, "data.image_size=64", "data=synthetic"], tmp_path))
    names = {name for name, _ in found}
    assert {"Conv2D", "SiLU", "MatMul", "Softmax"} <= names
    assert names <= set(rows())
    types = {one for _, kinds in found for one in re.split(", ", kinds) if one}
    assert types <= {"fp32", "int32", "int64", "uint8", "bool"}
    assert operators.SHORTER["Float32"] == "fp32"
