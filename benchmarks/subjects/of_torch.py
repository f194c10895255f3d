"""A subject of the step benchmark: timm's MobileViT in PyTorch, as its users train it.

python benchmarks/subjects/of_torch.py eager|channels-last|compiled '{"model": ..., as for mvit}'

Runs in an environment that has torch and timm. The step is that of mvit: bytes in, normalised, cross entropy with label
smoothing, gradients clipped, AdamW.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import Any

from serving import answers, serve  # pyright: ignore[reportMissingImports]

NAMES = {"xx_small": "mobilevit_xxs", "x_small": "mobilevit_xs", "small": "mobilevit_s"}


def main() -> None:
    stream = answers()
    form, case = sys.argv[1], json.loads(sys.argv[2])
    torch: Any = import_module("torch")
    timm: Any = import_module("timm")
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    layout = torch.contiguous_format if form == "eager" else torch.channels_last
    net = timm.create_model(NAMES[case["model"]], num_classes=1000).to(memory_format=layout)
    run = torch.compile(net) if form == "compiled" else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.01)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    side, batch = case["image_size"], case["batch"]
    images = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
    labels = torch.randint(0, 1000, (batch,))

    def normalised() -> Any:
        return images.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.25).contiguous(memory_format=layout)

    def train() -> None:
        net.train()
        loss = loss_of(run(normalised()), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        loss.item()

    def evaluate() -> None:
        net.eval()
        with torch.no_grad():
            run(normalised()).topk(5)

    began = time.perf_counter()
    train()
    facts = {
        "compile_s": time.perf_counter() - began,
        "what": f"timm {timm.__version__}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
    }
    serve(stream, facts, {"train": train, "evaluate": evaluate})


if __name__ == "__main__":
    main()
