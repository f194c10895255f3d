"""What the tests of models share: the sizes of conf/model, a tiny network, MindSpore in graph mode on the CPU."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mvit.config import ModelConfig

# Read when MindSpore and oneDNN load, so before any test imports them.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

MODELS = Path(__file__).parents[2] / "conf" / "model"


@pytest.fixture(scope="session")
def load_model():
    """A size of conf/model, with fields changed at will."""

    def load(size: str, **changes) -> ModelConfig:
        raw = OmegaConf.to_container(OmegaConf.load(MODELS / f"{size}.yaml"))
        assert isinstance(raw, dict)
        return ModelConfig.model_validate({**raw, **changes})

    return load


@pytest.fixture(scope="session")
def tiny(load_model) -> ModelConfig:
    """A network that compiles in a few seconds."""
    return load_model(
        "xx_small",
        name="tiny",
        stem_channels=4,
        channels=[4, 4, 4, 4, 4],
        conv_blocks=[1, 1, 1, 1, 1],
        depths=[1, 1, 1],
        features=[8, 8, 8],
        hidden=[8, 8, 8],
        dropout=0.1,
    )


@pytest.fixture(scope="session")
def mindspore():
    """MindSpore, in graph mode on the CPU."""
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    return ms
