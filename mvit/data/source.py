"""Source: the samples of one split, and their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mvit.data.sample import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Source(Protocol):
    """One split."""

    labels: NDArray[np.int32]
    """int32 (samples,)"""

    @property
    def in_memory(self) -> bool:
        """Whether samples are arrays in this process: threads prepare them, since sending copies would cost more."""
        ...

    def sample(self, index: int) -> Sample: ...
