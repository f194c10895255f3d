import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mvit.worker.entry_cell import EntryCell

pytestmark = pytest.mark.mindspore


class Inner(nn.Cell):
    """Twice its input; counts how often MindSpore names its graph."""

    def __init__(self):
        super().__init__()
        self.named = 0

    @property
    def compile_phase(self):
        return self._compile_phase

    @compile_phase.setter
    def compile_phase(self, value):
        self.named += 1
        nn.Cell.compile_phase.fset(self, value)

    def construct(self, x):
        return x * 2


class Outer(EntryCell):
    def __init__(self, inner, *, plus=1):
        super().__init__()
        self.inner = inner
        self.plus = plus

    def construct(self, x):
        return self.inner(x) + self.plus


@pytest.fixture
def outer():
    ms.set_context(mode=ms.GRAPH_MODE)
    return Outer(Inner())


def test_a_graph_is_named_once_however_often_it_is_called(outer):
    for value in (1.0, 2.0, 3.0):
        assert outer(ms.Tensor([value])).asnumpy() == 2 * value + 1
    assert outer.inner.named == 1
    assert len(outer.compile_cache) == 1


def test_cells_that_share_a_network_keep_their_own_graphs(outer):
    other = Outer(outer.inner, plus=5)
    for shape in ((2,), (3, 2), (2,)):
        for cell in (outer, other, outer, other):
            result = cell(ms.Tensor(np.ones(shape, np.float32))).asnumpy()
            assert (result == np.full(shape, 2 + cell.plus)).all()
    assert len(outer.compile_cache) == len(other.compile_cache) == 2
