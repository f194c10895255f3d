"""How far a run has come: what a resumed one needs to know beside the tensors."""

from dataclasses import dataclass, field


@dataclass
class Progress:
    """The moment after `step` steps; plain values, kept in a checkpoint's sidecar."""

    step: int = 0
    averaged: bool = False
    """Whether all workers have the same running statistics, as an evaluation wants them."""
    evaluated: bool = False
    """Whether the evaluation that is due after this step is done."""
    window: list[tuple[int, float, int]] = field(default_factory=list)
    """Step, loss sum and images of the steps since the last journal line."""
    last_loss: float | None = None
    first_step_s: float | None = None
    best: dict[str, float] = field(default_factory=lambda: {"best/val_acc1": -1.0, "best/epoch": 0})
    final: dict[str, float] = field(default_factory=dict)

    def advance(self) -> None:
        """One step further."""
        self.step += 1
        self.averaged = self.evaluated = False

    def epoch(self, steps_per_epoch: int) -> int:
        """The epoch to go on with, from 1: that of an evaluation which is still to be made, or of the next step."""
        return max(1, 1 + (self.step - (0 if self.evaluated else 1)) // steps_per_epoch)
