"""Numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping

_FORMS: dict[str, str] = {
    "best/val_acc1": "best {:.2f} %",
    "val/acc1": "acc@1 {:.2f} %",
    "val/acc5": "acc@5 {:.2f} %",
    "val/ema_acc1": "EMA acc@1 {:.2f} %",
    "val/ema_acc5": "EMA acc@5 {:.2f} %",
    "perf/images_per_s": "{:.0f} img/s",
    "perf/step_ms": "{:.2f} ms/step",
    "perf/peak_rss_mb": "{:.0f} MB",
    "val/loss": "loss {:.4f}",
    "val/ema_loss": "EMA loss {:.4f}",
    "train/loss": "training loss {:.4f}",
}


def in_words(values: Mapping[str, float]) -> str:
    """What a trial came to, as `best 98.61 %, 310 img/s`."""
    return ", ".join(number(objective, value) for objective, value in values.items())


def number(objective: str, value: float) -> str:
    """The value of one objective, with its unit."""
    return f"{value / 1e6:.2f} M parameters" if objective == "params" else _FORMS[objective].format(value)


def duration(seconds: float) -> str:
    """`0:07`, `1:02:03`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
