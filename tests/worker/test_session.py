"""What a worker has of the others, and what it writes of a comparison."""

from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.mindspore


def test_workers_wait_for_one_another_before_every_batch():
    from mvit.worker.session import Session

    done: list[object] = []
    meeting = SimpleNamespace(
        heartbeat=SimpleNamespace(mark=lambda: done.append("mark")),
        workers=SimpleNamespace(sum=lambda vector: done.append("meet")),
    )
    done.extend(Session.in_step(meeting, [1, 2]))  # pyright: ignore[reportArgumentType]
    assert done == ["mark", "meet", 1, "mark", "meet", 2]


def test_a_difference_that_is_no_number_is_kept_and_not_written():
    from mvit.worker.export import Difference

    expected = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)
    close = Difference().with_batch(expected + np.float32(0.5), expected)
    assert close.metrics() == {"max_diff": 0.5, "same_top1_pct": 100.0}
    lost = close.with_batch(np.full((2, 2), np.nan, np.float32), expected)
    assert np.isnan(lost.logits)
    assert lost.metrics() == {"same_top1_pct": 75.0}
