"""The cells of a training run: the step, its evaluation, and all that has state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import mindspore as ms
import numpy as np
from mindspore import nn

from mvit.config import DynamicLossScale, FixedLossScale, Optimizer, TrainRun
from mvit.models.kernels import operators
from mvit.models.spec import groups
from mvit.worker import checkpoint, collectives, device, group
from mvit.worker.evaluate import EvaluateStep
from mvit.worker.fused_gradients import FusedGradients
from mvit.worker.fused_update import FusedEma, FusedUpdate, fused_constants
from mvit.worker.images import Mix
from mvit.worker.optim import make_optimizer
from mvit.worker.session import Session
from mvit.worker.step import RunStep
from mvit.worker.step_graphs import Ema, Gradients, Scale, Update


@dataclass(frozen=True)
class StepRecipe:
    """What a training step computes."""

    optimizer: Optimizer
    scaling: FixedLossScale | DynamicLossScale | None
    mixes: bool = False
    """Whether images may be mixed."""
    label_smoothing: float = 0.1
    clip_norm: float | None = None
    clip_value: float | None = None
    ema_momentum: float | None = None
    freeze: tuple[str, ...] = ()

    @classmethod
    def of_training(cls, config: TrainRun) -> "StepRecipe":
        recipe = config.train
        return cls(
            optimizer=config.optimizer,
            scaling=config.scaling,
            mixes=config.augment.mix is not None,
            label_smoothing=recipe.label_smoothing,
            clip_norm=recipe.clip_norm,
            clip_value=recipe.clip_value,
            ema_momentum=recipe.ema_momentum,
            freeze=recipe.freeze,
        )


@dataclass(frozen=True)
class TrainCells:
    """Around the network of a session."""

    step: RunStep
    evaluate_step: EvaluateStep
    ema: Ema | None
    scale: Scale | None
    stateful: tuple[nn.Cell, ...]
    """Those whose parameters make a checkpoint."""
    clocks: Mapping[str, Callable[[], float]]
    """Seconds so far of what takes a part of a step, by name."""

    def statistics(self) -> list[ms.Parameter]:
        """BatchNorm's running statistics, and their averages."""
        parameters = {p.name: p for cell in self.stateful for p in cell.get_parameters()}
        return [p for name, p in parameters.items() if name.endswith(("moving_mean", "moving_variance"))]

    def statistics_of_others(self, workers: collectives.Workers) -> dict[str, np.ndarray]:
        """The other workers' running statistics, which differ until they are averaged, by their checkpoint names.

        Every worker must call this.
        """
        statistics = self.statistics()
        return {
            checkpoint.of_rank(rank, parameter.name): value
            for rank, values in enumerate(workers.gather([p.asnumpy() for p in statistics]))
            for parameter, value in zip(statistics, values, strict=True)
            if rank > 0
        }


def build_cells(session: Session, recipe: StepRecipe) -> TrainCells:
    """Build what trains the session's network, with the parameters frozen that the recipe names."""
    plan, net = session.run.plan, session.net
    device.freeze(net, recipe.freeze)
    scale = Scale(recipe.scaling) if recipe.scaling else None
    constants = fused_constants(recipe.optimizer) if plan.kernels.isa else None
    form_of_gradients = partial(FusedGradients, split=constants is None) if plan.kernels.isa else Gradients
    gradients = form_of_gradients(
        net,
        normalise=session.normalise,
        smoothing=recipe.label_smoothing,
        mix=Mix(channels_last=net.channels_last) if recipe.mixes else None,
        scale=scale,
    )
    trained = net.trainable_params()
    rate_factors, decays = groups([p.name for p in trained], recipe.optimizer, model=session.run.config.model)
    optimizer = make_optimizer(trained, recipe.optimizer, rate_factors=rate_factors, decays=decays)
    form = partial(Update, scale=scale)
    clocks: dict[str, Callable[[], float]] = {}
    if constants is not None:  # in fp32, which has no loss scale
        shares_memory = plan.world_size > 1 and plan.nodes == 1
        if shares_memory:
            clocks["all_reduce"] = operators.all_reduce_s
            group.join(session.workers, rank=session.rank, size=1 + sum(parameter.size for parameter in trained))
        form = partial(FusedUpdate, kind=recipe.optimizer.kind, constants=constants, shares_memory=shares_memory)
    update = form(
        optimizer,
        num_parts=plan.world_size * plan.accumulation,
        distributed=plan.world_size > 1,
        clip_norm=recipe.clip_norm,
        clip_value=recipe.clip_value,
    )
    form_of_ema = FusedEma if plan.kernels.isa else Ema
    ema = form_of_ema(net, recipe.ema_momentum) if recipe.ema_momentum else None
    return TrainCells(
        step=RunStep(gradients, update, ema, accumulation=plan.accumulation),
        evaluate_step=EvaluateStep(net, normalise=session.normalise, num_classes=plan.num_classes),
        ema=ema,
        scale=scale,
        stateful=tuple(cell for cell in (net, optimizer, ema, scale) if cell is not None),
        clocks=clocks,
    )
