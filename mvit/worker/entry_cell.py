"""EntryCell: a cell that the host calls, compiled as a graph of its own."""

from mindspore import nn


class EntryCell(nn.Cell):
    """A cell whose repeated calls cost the host little.

    On every call MindSpore writes the name of the compiled graph into every cell below: 5 ms for the 280 cells of an
    xx_small step. Here that happens only when the name changes. MindSpore 2.10 reads it from a cell only while it
    compiles a graph, and the name of a graph that is being compiled is new.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)

    @property
    def compile_phase(self) -> str | None:
        """Name of the graph that was called last."""
        return self._compile_phase

    @compile_phase.setter
    def compile_phase(self, value: str) -> None:
        if value != self._compile_phase:
            nn.Cell.compile_phase.fset(self, value)
