"""A subject of the step benchmark: MobileViT of timm or of transformers in PyTorch, as their users train it.

    python benchmarks/subjects/of_torch.py '{"model": ..., as for mvit}' timm|transformers eager|channels-last|compiled

Runs in an environment that has torch and the library. The step is that of mvit: bytes in, normalised, cross entropy
with label smoothing, gradients clipped, AdamW. `compiled` is channels-last too.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

from serving import answers, seconds, serve  # pyright: ignore[reportMissingImports]

TIMM = {"xx_small": "mobilevit_xxs", "x_small": "mobilevit_xs", "small": "mobilevit_s"}
# The configurations of apple/mobilevit-xx-small, -x-small and -small.
TRANSFORMERS = {
    "xx_small": {
        "hidden_sizes": [64, 80, 96],
        "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
        "expand_ratio": 2.0,
        "hidden_dropout_prob": 0.05,
    },
    "x_small": {"hidden_sizes": [96, 120, 144], "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384]},
    "small": {"hidden_sizes": [144, 192, 240], "neck_hidden_sizes": [16, 32, 64, 96, 128, 160, 640]},
}


def main() -> None:
    stream = answers()
    case, (library, form) = json.loads(sys.argv[1]), sys.argv[2:]
    torch: Any = import_module("torch")
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    layout = torch.contiguous_format if form == "eager" else torch.channels_last
    net, version = network(library, case)
    net = net.to(memory_format=layout)
    run = torch.compile(net) if form == "compiled" else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.01)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    side, batch = case["image_size"], case["batch"]
    images = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
    labels = torch.randint(0, 1000, (batch,))

    def logits() -> Any:
        normalised = images.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.25)
        output = run(normalised.contiguous(memory_format=layout))
        return output if library == "timm" else output.logits

    def train() -> None:
        net.train()
        loss = loss_of(logits(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        loss.item()

    def evaluate() -> None:
        net.eval()
        with torch.no_grad():
            logits().topk(5)

    facts = {
        "first_s": seconds(train),
        "versions": {library: version, "torch": torch.__version__},
        "isa": torch.backends.cpu.get_cpu_capability(),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }
    serve(stream, facts, {"train": train, "evaluate": evaluate})


def network(library: str, case: dict[str, Any]) -> tuple[Any, str]:
    """The network of a library, not pretrained, and the version of the library."""
    module: Any = import_module(library)
    if library == "timm":
        return module.create_model(TIMM[case["model"]], num_classes=1000), module.__version__
    sizes = TRANSFORMERS[case["model"]]
    config = module.MobileViTConfig(**sizes, image_size=case["image_size"], num_labels=1000)
    return module.MobileViTForImageClassification(config), module.__version__


if __name__ == "__main__":
    main()
