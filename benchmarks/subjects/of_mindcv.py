"""A subject of the step benchmark: MindCV's MobileViT on MindSpore, as its users train it.

    python benchmarks/subjects/of_mindcv.py '{"model": ..., as for mvit}'

Runs in an environment that has mindspore and mindcv. Network, loss, AdamW and training step are MindCV's, in graph mode
and float32; its recipe clips no gradients. Batches are as its pipeline makes them: normalised, NCHW.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

from serving import answers, seconds, serve  # pyright: ignore[reportMissingImports]


def main() -> None:
    stream = answers()
    case = json.loads(sys.argv[1])
    ms: Any = import_module("mindspore")
    mindcv: Any = import_module("mindcv")
    np: Any = import_module("numpy")
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    ms.device_context.cpu.op_tuning.threads_num(case["threads"])
    ms.set_seed(0)
    net = mindcv.create_model(f"mobilevit_{case['model']}", num_classes=1000)
    optimizer = mindcv.create_optimizer(net.trainable_params(), opt="adamw", lr=1e-4, weight_decay=0.01)
    loss = mindcv.create_loss("CE", label_smoothing=0.1)
    trainer = mindcv.create_trainer(
        net, loss, optimizer, metrics={"accuracy"}, amp_level="O0", amp_cast_list=None, loss_scale_type="fixed"
    )
    random, side, batch = np.random.default_rng(0), case["image_size"], case["batch"]
    images = ms.Tensor(random.standard_normal((batch, 3, side, side), np.float32))
    labels = ms.Tensor(random.integers(0, 1000, batch).astype(np.int32))

    def train() -> None:
        trainer.train_network.set_train(True)
        trainer.train_network(images, labels).asnumpy()  # synchronises

    def evaluate() -> None:
        net.set_train(False)
        ms.ops.topk(net(images), 5)[1].asnumpy()

    facts = {
        "first_s": seconds(train),
        "versions": {"mindcv": mindcv.__version__, "mindspore": ms.__version__},
        "isa": f"oneDNN up to {os.environ.get('ONEDNN_MAX_CPU_ISA', 'what the CPU has')}",
        "parameters": sum(parameter.size for parameter in net.trainable_params()),
    }
    serve(stream, facts, {"train": train, "evaluate": evaluate})


if __name__ == "__main__":
    main()
