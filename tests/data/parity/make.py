"""Makes the parity packs: a thin MobileViT of timm, transformers or MindCV, and what it computes on a few images.

    python tests/data/parity/make.py timm            # needs torch, timm and safetensors
    python tests/data/parity/make.py transformers    # needs torch, transformers and safetensors
    python tests/data/parity/make.py mindcv          # needs mindspore and mindcv

A pack is LIBRARY.zip beside this file:

    weights.safetensors, or .ckpt    in the library's own format and names
    SIZE/images.npy                  (images, SIZE, SIZE, 3) uint8, RGB
    SIZE/logits.npy                  (images, classes) float32, of the library's own preprocessing and network
    about.json                       the network as mvit's configuration has it, and the versions that made the pack

The network has every kind of layer, with as few channels as all three libraries build: timm rounds those of stages to
multiples of 8, all three the hidden ones of an inverted residual, and MindCV's stem has 16. Weights, BatchNorm's
statistics and all scales are random, in sixteenths times a power of two, which packs well. Some numbers are small on
purpose: the variances, so that BatchNorm's epsilon counts, and the first tokens, so that LayerNorm's does.
"""

import io
import json
import sys
import zipfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CLASSES = 5
NETWORK: dict[str, Any] = {
    "name": "thin",
    "stem_channels": 16,
    "channels": [8, 8, 16, 8, 16],
    "conv_blocks": [1, 3, 1, 1, 1],
    "expansion": 2,
    "depths": [2, 4, 3],
    "features": [8, 12, 16],
    "hidden": [16, 24, 32],
    "heads": 4,
    "final_expansion": 2,
}
EVEN, ODD = 64, 80
"""Side lengths: the feature maps of ODD do not divide into patches, and are resized."""
FIRST_TOKENS = (".conv_1x1.weight", ".conv_1x1.convolution.weight", ".local_rep.1.features.1.gamma")
"""What the scale of the tokens depends on, in each library."""


def main(library: str) -> None:
    of = {"timm": of_timm, "transformers": of_transformers, "mindcv": of_mindcv}[library]
    # MindCV aligns the corners when it resizes patches, which mvit does not do: even sizes alone.
    sizes = (EVEN,) if library == "mindcv" else (EVEN, ODD)
    images = {size: pictures(size) for size in sizes}
    with TemporaryDirectory() as room:
        weights, logits, versions = of(Path(room), images)
        members = {weights.name: weights.read_bytes()}
    for size in sizes:
        members |= {f"{size}/images.npy": npy(images[size]), f"{size}/logits.npy": npy(logits[size])}
    about = {"library": library, "versions": versions, "network": NETWORK, "sizes": list(sizes)}
    members["about.json"] = json.dumps(about, indent=1).encode() + b"\n"
    path = HERE / f"{library}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as pack:
        for name, content in members.items():
            pack.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, compresslevel=9)  # without a time
    print(f"{path}: {path.stat().st_size} bytes; {versions}")
    for size in sizes:
        print(f"  logits at {size}: {logits[size].round(3).tolist()}")


def pictures(size: int) -> np.ndarray:
    """Coloured squares of 8x8 pixels, of one brightness in each channel of an image."""
    random = np.random.default_rng(size)
    squares = random.integers(0, 256, (2, size // 8, size // 8, 3)) * random.uniform(0.2, 1.0, (2, 1, 1, 3))
    return squares.astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def of_timm(room: Path, images: dict[int, np.ndarray]) -> Any:
    torch, timm = import_module("torch"), import_module("timm")
    blocks, net_of = import_module("timm.models.mobilevit"), import_module("timm.models.byobnet")
    stages: list[Any] = [
        blocks._inverted_residual_block(d=depth, c=channels, s=stride, br=float(NETWORK["expansion"]))
        for depth, channels, stride in zip(NETWORK["conv_blocks"], NETWORK["channels"], (1, 2), strict=False)
    ]
    stages += [
        blocks._mobilevit_block(
            d=1,
            c=channels,
            s=2,
            transformer_dim=features,
            transformer_depth=depth,
            patch_size=2,
            br=float(NETWORK["expansion"]),
        )
        for channels, features, depth in zip(
            NETWORK["channels"][2:], NETWORK["features"], NETWORK["depths"], strict=True
        )
    ]
    # The other values are those of its mobilevit_xxs.
    config = net_of.ByoModelCfg(
        blocks=tuple(stages),
        stem_chs=NETWORK["stem_channels"],
        stem_type="3x3",
        stem_pool="",
        downsample="",
        act_layer="silu",
        num_features=NETWORK["channels"][-1] * NETWORK["final_expansion"],
    )
    net = net_of.ByobNet(config, num_classes=CLASSES).eval()
    published = timm.get_pretrained_cfg("mobilevit_xxs")
    mean, std = (np.array(values, np.float32) for values in (published.mean, published.std))

    def logits(batch: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(nchw((batch.astype(np.float32) / 255 - mean) / std))).numpy()

    return of_torch(net, room, images, logits, versions("torch", "timm"))


def of_transformers(room: Path, images: dict[int, np.ndarray]) -> Any:
    library = import_module("transformers")
    config = library.MobileViTConfig(
        hidden_sizes=NETWORK["features"],
        neck_hidden_sizes=[
            NETWORK["stem_channels"],
            *NETWORK["channels"],
            NETWORK["channels"][-1] * NETWORK["final_expansion"],
        ],
        num_attention_heads=NETWORK["heads"],
        mlp_ratio=2.0,
        expand_ratio=float(NETWORK["expansion"]),
        num_labels=CLASSES,
    )
    net = library.MobileViTForImageClassification(config).eval()
    processor = library.MobileViTImageProcessor(do_resize=False, do_center_crop=False)  # the rest is its default

    def logits(batch: np.ndarray) -> np.ndarray:
        return net(**processor(list(batch), return_tensors="pt")).logits.numpy()

    return of_torch(net, room, images, logits, versions("torch", "transformers"))


def of_torch(net: Any, room: Path, images: dict[int, np.ndarray], logits: Any, of: dict[str, str]) -> Any:
    """Fill the network, save it, and compute."""
    torch, safetensors = import_module("torch"), import_module("safetensors.torch")
    values = random_values({name: tuple(value.shape) for name, value in net.state_dict().items()})
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in values.items()})
    safetensors.save_file(net.state_dict(), room / "weights.safetensors")
    with torch.no_grad():
        return room / "weights.safetensors", {size: logits(batch) for size, batch in images.items()}, of


def of_mindcv(room: Path, images: dict[int, np.ndarray]) -> Any:
    ms, library = import_module("mindspore"), import_module("mindcv.models.mobilevit")
    constants = import_module("mindcv.data.constants")
    config = library.get_config("xx_small")
    for index, channels in enumerate(NETWORK["channels"]):
        config[f"layer{index + 1}"]["out_channels"] = channels
    for index, depth in enumerate(NETWORK["depths"]):
        config[f"layer{index + 3}"] |= {
            "transformer_channels": NETWORK["features"][index],
            "ffn_dim": NETWORK["hidden"][index],
            "transformer_blocks": depth,
            "num_heads": NETWORK["heads"],
        }
    config["last_layer_exp_factor"] = NETWORK["final_expansion"]
    net = library.MobileViT(config, num_classes=CLASSES).set_train(False)
    parameters = net.parameters_dict()
    for name, value in random_values({name: value.shape for name, value in parameters.items()}).items():
        parameters[name].set_data(ms.Tensor(value))
    ms.save_checkpoint(net, str(room / "weights.ckpt"))
    mean, std = (
        np.array(value, np.float32) for value in (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD)
    )
    logits = {
        size: net(ms.Tensor(nchw((batch.astype(np.float32) - mean) / std))).asnumpy() for size, batch in images.items()
    }
    return room / "weights.ckpt", logits, versions("mindspore", "mindcv")


def random_values(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A value for each parameter and statistic of a network, by how the libraries call them."""
    random = np.random.default_rng(15)
    variances = ("running_var", "moving_variance")
    of_batch_norm = {name.rpartition(".")[0] for name in shapes if name.endswith(variances)}
    halvings: dict[str, np.ndarray] = {}
    made: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        norm, _, leaf = name.rpartition(".")
        fan_in = int(np.prod(shape[1:]))
        match leaf:
            case "num_batches_tracked":
                value = np.array(1)
            case "running_var" | "moving_variance" | "gamma" | "weight" if norm in of_batch_norm:
                if norm not in halvings:
                    halvings[norm] = random.integers(0, 6, shape)
                scale = 0.5 ** halvings[norm]
                # The scale undoes what the variance and SiLU do: the signal neither fades nor explodes.
                value = scale**2 if leaf in variances else scale * random.integers(20, 40, shape) / 16
            case "running_mean" | "moving_mean" | "bias" | "beta":
                value = random.integers(-6, 7, shape) / 32
            case _ if len(shape) == 1:  # of LayerNorm
                value = random.integers(8, 25, shape) / 16
            case _:
                value = random.normal(0, 16, shape).round().clip(-40, 40) / 16 * 2.0 ** np.round(-np.log2(fan_in) / 2)
        if name.endswith(FIRST_TOKENS):
            value = value / 32
        made[name] = value.astype(np.int64 if leaf == "num_batches_tracked" else np.float32)
    return made


def nchw(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def versions(*packages: str) -> dict[str, str]:
    return {name: version(name) for name in packages}


if __name__ == "__main__":
    main(sys.argv[1])
