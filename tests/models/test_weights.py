"""mvit.models.weights: what other libraries compute is computed here; a problem is one line."""

import json
import pickle
import shlex
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mvit.cli import main
from mvit.data.generated import write_image_folder
from mvit.models import spec
from mvit.models.weights import SIZES, WeightsError, convert, load_metadata, save
from mvit.parent.request.weight_rules import OF_DATA, OF_MODEL
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir

PACKS = Path(__file__).parents[1] / "data" / "parity"
"""Thin networks of each library with their logits; make.py there made them."""

THEIRS = {
    "timm": ("rgb", (0.0,) * 3, (1.0,) * 3, 0.9, 1e-5),
    "transformers": ("bgr", (0.0,) * 3, (1.0,) * 3, 256 / 288, 1e-5),
    "mindcv": ("rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, 1e-7),
}


# Names of the libraries, written by how they build their networks, apart from the tables in weights.py.


def timm(ours, *, depths):
    """Our tensors under timm's names."""
    made = {}
    for part, theirs in (("stem", "stem"), ("final", "final_conv")):
        _torch_conv(made, ours, part, theirs, "conv", "bn")
    for stage, blocks in enumerate((1, 3, 1, 1, 1)):
        for block in range(blocks):
            for part, theirs in (("expand", "conv1_1x1"), ("depthwise", "conv2_kxk"), ("project", "conv3_1x1")):
                name = f"stages.{stage}.{block}"
                _torch_conv(made, ours, f"{name}.{part}", f"{name}.{theirs}", "conv", "bn")
    for index, depth in enumerate(depths):
        a, b = f"transformers.{index}", f"stages.{index + 2}.1"
        made[f"{b}.conv_1x1.weight"] = ours[f"{a}.to_tokens.weight"]
        for part, theirs in (("local", "conv_kxk"), ("from_tokens", "conv_proj"), ("fuse", "conv_fusion")):
            _torch_conv(made, ours, f"{a}.{part}", f"{b}.{theirs}", "conv", "bn")
        _torch_norm(made, ours, f"{a}.norm", f"{b}.norm")
        for layer in range(depth):
            c, d = f"{a}.layers.{layer}", f"{b}.transformer.{layer}"
            _torch_norm(made, ours, f"{c}.norm1", f"{d}.norm1")
            _torch_norm(made, ours, f"{c}.norm2", f"{d}.norm2")
            for leaf in ("weight", "bias"):
                made[f"{d}.attn.qkv.{leaf}"] = _fused(ours, f"{c}.attention", leaf)
                made[f"{d}.attn.proj.{leaf}"] = ours[f"{c}.attention.out.{leaf}"]
                made[f"{d}.mlp.fc1.{leaf}"] = ours[f"{c}.fc1.{leaf}"]
                made[f"{d}.mlp.fc2.{leaf}"] = ours[f"{c}.fc2.{leaf}"]
    return made | {f"head.fc.{leaf}": ours[f"head.{leaf}"] for leaf in ("weight", "bias")}


def transformers(ours, *, depths):
    """Our tensors under transformers' names."""
    made = {}
    names = ("convolution", "normalization")
    for part, theirs in (("stem", "conv_stem"), ("final", "conv_1x1_exp")):
        _torch_conv(made, ours, part, f"mobilevit.{theirs}", *names)
    for stage, blocks in enumerate((1, 3, 1, 1, 1)):
        for block in range(blocks):
            where = f"mobilevit.encoder.layer.{stage}." + (f"layer.{block}" if stage < 2 else "downsampling_layer")
            for part, theirs in (("expand", "expand_1x1"), ("depthwise", "conv_3x3"), ("project", "reduce_1x1")):
                _torch_conv(made, ours, f"stages.{stage}.{block}.{part}", f"{where}.{theirs}", *names)
    for index, depth in enumerate(depths):
        a, b = f"transformers.{index}", f"mobilevit.encoder.layer.{index + 2}"
        made[f"{b}.conv_1x1.convolution.weight"] = ours[f"{a}.to_tokens.weight"]
        for part, theirs in (("local", "conv_kxk"), ("from_tokens", "conv_projection"), ("fuse", "fusion")):
            _torch_conv(made, ours, f"{a}.{part}", f"{b}.{theirs}", *names)
        _torch_norm(made, ours, f"{a}.norm", f"{b}.layernorm")
        for layer in range(depth):
            c, d = f"{a}.layers.{layer}", f"{b}.transformer.layer.{layer}"
            _torch_norm(made, ours, f"{c}.norm1", f"{d}.layernorm_before")
            _torch_norm(made, ours, f"{c}.norm2", f"{d}.layernorm_after")
            for leaf in ("weight", "bias"):
                for part in ("query", "key", "value"):
                    made[f"{d}.attention.attention.{part}.{leaf}"] = ours[f"{c}.attention.{part}.{leaf}"]
                made[f"{d}.attention.output.dense.{leaf}"] = ours[f"{c}.attention.out.{leaf}"]
                made[f"{d}.intermediate.dense.{leaf}"] = ours[f"{c}.fc1.{leaf}"]
                made[f"{d}.output.dense.{leaf}"] = ours[f"{c}.fc2.{leaf}"]
    return made | {f"classifier.{leaf}": ours[f"head.{leaf}"] for leaf in ("weight", "bias")}


def mindcv(ours, *, depths):
    """Our tensors under MindCV's names."""
    made = {}
    _mindcv_conv(made, ours, "stem", "conv_1")
    _mindcv_conv(made, ours, "final", "conv_1x1_exp")
    for stage, blocks in enumerate((1, 3, 1, 1, 1)):
        for block in range(blocks):
            for index, part in enumerate(("expand", "depthwise", "project")):
                where = f"layer_{stage + 1}.{block}.block.{index}"
                _mindcv_conv(made, ours, f"stages.{stage}.{block}.{part}", where)
    for index, depth in enumerate(depths):
        a, b = f"transformers.{index}", f"layer_{index + 3}.1"
        _mindcv_conv(made, ours, f"{a}.local", f"{b}.local_rep.0")
        _mindcv_conv(made, ours, f"{a}.to_tokens", f"{b}.local_rep.1")
        _mindcv_conv(made, ours, f"{a}.from_tokens", f"{b}.conv_proj")
        _mindcv_conv(made, ours, f"{a}.fuse", f"{b}.fusion")
        for leaf in ("gamma", "beta"):
            made[f"{b}.global_rep.{depth}.{leaf}"] = ours[f"{a}.norm.{leaf}"]
        for layer in range(depth):
            c, d = f"{a}.layers.{layer}", f"{b}.global_rep.{layer}"
            for leaf in ("gamma", "beta"):
                made[f"{d}.pre_norm_mha.0.{leaf}"] = ours[f"{c}.norm1.{leaf}"]
                made[f"{d}.pre_norm_ffn.0.{leaf}"] = ours[f"{c}.norm2.{leaf}"]
            for leaf in ("weight", "bias"):
                made[f"{d}.pre_norm_mha.1.qkv_proj.{leaf}"] = _fused(ours, f"{c}.attention", leaf)
                made[f"{d}.pre_norm_mha.1.out_proj.{leaf}"] = ours[f"{c}.attention.out.{leaf}"]
                made[f"{d}.pre_norm_ffn.1.{leaf}"] = ours[f"{c}.fc1.{leaf}"]
                made[f"{d}.pre_norm_ffn.4.{leaf}"] = ours[f"{c}.fc2.{leaf}"]
    return made | {f"classifier.3.{leaf}": ours[f"head.{leaf}"] for leaf in ("weight", "bias")}


def _fused(ours, attention, leaf):
    return np.concatenate([ours[f"{attention}.{part}.{leaf}"] for part in ("query", "key", "value")])


def _torch_conv(made, ours, name, theirs, convolution, norm):
    made[f"{theirs}.{convolution}.weight"] = ours[f"{name}.conv.weight"]
    _torch_norm(made, ours, f"{name}.norm", f"{theirs}.{norm}")
    made[f"{theirs}.{norm}.running_mean"] = ours[f"{name}.norm.moving_mean"]
    made[f"{theirs}.{norm}.running_var"] = ours[f"{name}.norm.moving_variance"]
    made[f"{theirs}.{norm}.num_batches_tracked"] = np.array(7, np.int64)


def _torch_norm(made, ours, name, theirs):
    made[f"{theirs}.weight"], made[f"{theirs}.bias"] = ours[f"{name}.gamma"], ours[f"{name}.beta"]


def _mindcv_conv(made, ours, name, theirs):
    made[f"{theirs}.features.0.weight"] = ours[f"{name}.conv.weight"]
    for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
        made[f"{theirs}.features.1.{leaf}"] = ours[f"{name}.norm.{leaf}"]


def random_weights(config, *, num_classes=7):
    random = np.random.default_rng(0)
    shapes = spec.parameter_shapes(config, num_classes=num_classes)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_ckpt(path, tensors):
    import mindspore as ms

    ms.save_checkpoint([{"name": name, "data": ms.Tensor(value)} for name, value in tensors.items()], str(path))
    return path


@pytest.fixture
def source(tmp_path, load_model):
    """Write timm's xx_small after a change to its tensors."""

    def write(change=None):
        config = load_model("xx_small")
        tensors = timm(random_weights(config), depths=config.depths)
        if change:
            change(tensors)
        save_file(tensors, tmp_path / "source.safetensors")
        return tmp_path / "source.safetensors"

    return write


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        convert(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rename", [timm, transformers])
def test_every_tensor_of_a_torch_library_arrives_under_our_name(tmp_path, load_model, rename, size):
    config = load_model(size)
    ours = random_weights(config)
    save_file(rename(ours, depths=config.depths), tmp_path / "a.safetensors")
    check_import(convert(tmp_path / "a.safetensors"), ours, library=rename.__name__, size=size)


@pytest.mark.mindspore
@pytest.mark.usefixtures("mindspore")
@pytest.mark.parametrize("size", SIZES)
def test_every_tensor_of_mindcv_arrives_under_our_name(tmp_path, load_model, size):
    config = load_model(size, token_projection="conv_norm_silu")
    ours = random_weights(config)
    source = write_ckpt(tmp_path / "a.ckpt", mindcv(ours, depths=config.depths))
    check_import(convert(source), ours, library="mindcv", size=size)


def check_import(imported, ours, *, library, size):
    assert (imported.library, imported.model, imported.num_classes) == (library, size, 7)
    assert list(imported.tensors) == list(ours)
    for name, value in ours.items():
        np.testing.assert_array_equal(imported.tensors[name], value, err_msg=name)
    order, mean, std, crop, eps = THEIRS[library]
    assert (imported.channel_order, imported.mean, imported.std) == (order, mean, std)
    assert (imported.eval_crop_fraction, imported.layer_norm_eps) == (crop, eps)
    resized = {"timm": ("bicubic", True), "transformers": ("bilinear", True), "mindcv": ("bilinear", False)}
    assert (imported.interpolation, imported.antialias) == resized[library]


@pytest.mark.mindspore
@pytest.mark.parametrize("library", THEIRS)
def test_imported_weights_compute_what_their_library_computes(mindspore, load_model, configured, tmp_path, library):
    from mvit.models.mobilevit import MobileViT
    from mvit.worker.images import Normalise

    with zipfile.ZipFile(PACKS / f"{library}.zip") as pack:
        pack.extractall(tmp_path)
    about = json.loads((tmp_path / "about.json").read_text())
    thin = load_model("xx_small", **about["network"])
    imported = convert(next(tmp_path.glob("weights.*")), networks=[thin])
    config = thin.model_copy(update={name: getattr(imported, name) for name in OF_MODEL})
    net = MobileViT(config, num_classes=imported.num_classes).set_train(False)
    for name, parameter in net.parameters_dict().items():
        parameter.set_data(mindspore.Tensor(imported.tensors[name]))
    data = configured("data=imagefolder", "data.root=/pictures").data
    normalise = Normalise(data.model_copy(update={name: getattr(imported, name) for name in OF_DATA}))
    for size in about["sizes"]:
        images, expected = (np.load(tmp_path / f"{size}/{name}.npy") for name in ("images", "logits"))
        logits = net(normalise(mindspore.Tensor(images)), mindspore.Tensor(0, mindspore.int32)).asnumpy()
        difference = abs(logits - expected).max() / abs(expected).max()
        print(f"{library}, {size}x{size}: logits differ by {difference:.1e} of the largest")
        assert difference < 5e-5
        assert abs(expected[0] - expected[1]).max() > 0.1 * abs(expected).max(), (
            "logits that hardly depend on the image"
        )


def test_the_packs_stay_small():
    assert sum(path.stat().st_size for path in PACKS.glob("*.zip")) < 300_000


def test_a_written_file_holds_the_tensors_and_the_conventions(tmp_path, source):
    imported = convert(source())
    save(imported, tmp_path / "out.safetensors")
    stored = load_file(tmp_path / "out.safetensors")
    assert stored.keys() == imported.tensors.keys()
    assert all((stored[name] == value).all() for name, value in imported.tensors.items())
    metadata = load_metadata(tmp_path / "out.safetensors")
    expected = {key: value for key, value in vars(imported).items() if key != "tensors"}
    assert metadata == json.loads(json.dumps(expected))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path, source):
    imported, out = convert(source()), tmp_path / "out.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(WeightsError, match="already exists"):
        save(imported, out)
    assert out.read_bytes() == b"precious"
    save(imported, out, overwrite=True)
    assert load_metadata(out)["library"] == "timm"


def test_a_file_is_written_only_as_safetensors_and_only_into_a_folder(tmp_path, source):
    imported = convert(source())
    with pytest.raises(WeightsError, match=r"\.safetensors"):
        save(imported, tmp_path / "out.ckpt")
    with pytest.raises(WeightsError, match="cannot be written"):
        save(imported, tmp_path / "nowhere" / "out.safetensors")


def test_the_printed_command_evaluates_with_the_conventions_of_the_file(tmp_path, source, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["weights", str(source()), "my weights.safetensors"]) == 0
    title, remark, command = capsys.readouterr().out.splitlines()
    assert title == "my weights.safetensors: xx_small of timm, 7 classes, 315 tensors"
    assert remark == "evaluate it on your data; model, normalisation and crop are taken from the file:"
    program, *words = shlex.split(command)
    assert (program, words[-1]) == ("python", "data.root=FOLDER")
    write_image_folder(tmp_path / "images", classes=7, train=7, val=7, size=(40, 30))
    words[-1] = "data.root=images"
    freeze = [sys.executable, *words, "freeze=true", "tracking=none", f"runs_dir={tmp_path}/runs"]
    done = subprocess.run(freeze, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the weights were trained with" not in done.stdout
    config = read_run(RunDir(tmp_path / done.stdout.splitlines()[-1])).config
    expected = convert(source())
    assert config.model.name == expected.model
    for section, names in ((config.data, OF_DATA), (config.model, OF_MODEL)):
        assert {name: getattr(section, name) for name in names} == {name: getattr(expected, name) for name in names}


def test_metadata_of_a_file_that_is_not_ours_is_refused(source):
    with pytest.raises(
        WeightsError, match="has no metadata of mvit; import it with: python -m mvit weights .*/source.safetensors OUT"
    ):
        load_metadata(source())


def test_mvits_own_file_is_not_imported_twice(tmp_path, source):
    save(convert(source()), tmp_path / "out.safetensors")
    assert "already uses mvit's names" in refusal(tmp_path / "out.safetensors")


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin", "x.pkl", "x.pickle", "x.PTH"])
def test_a_pickle_is_refused_by_its_name_before_it_is_opened(tmp_path, name):
    assert "pickle, which can execute code" in refusal(tmp_path / name)


class Trap:
    """Leaves a file behind when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_pickle_under_another_name_is_refused_and_never_run(tmp_path, name, packed):
    source, trap = tmp_path / name, tmp_path / "trap"
    if packed:  # as torch.save has done since 1.6
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Trap(trap)))
    else:
        source.write_bytes(pickle.dumps(Trap(trap)))
    assert "pickle, which can execute code" in refusal(source)
    assert not trap.exists()


@pytest.mark.parametrize("length", [0x80, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle_or_zip_is_still_read(tmp_path, length):
    source = tmp_path / "x.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(length)
    source.write_bytes(struct.pack("<Q", length) + header.encode() + bytes(4))
    assert source.read_bytes().startswith((b"\x80", b"PK"))
    assert "is not a MobileViT" in refusal(source)


def test_other_endings_and_missing_files_are_refused(tmp_path):
    assert "neither a .safetensors nor a .ckpt file" in refusal(tmp_path / "x.npz")
    assert "No such file" in refusal(tmp_path / "x.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "Is a directory" in refusal(tmp_path / "folder.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 100, 1_000_000])
def test_a_torn_safetensors_is_refused(source, keep):
    path = source()
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be read" in refusal(path)


def test_garbage_called_safetensors_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"garbage " * 100)
    assert "cannot be read" in refusal(path)


@pytest.mark.mindspore
@pytest.mark.usefixtures("mindspore")
def test_a_torn_empty_or_garbage_ckpt_is_refused(tmp_path):
    whole = write_ckpt(tmp_path / "whole.ckpt", {"conv_1.features.0.weight": np.ones((16, 3, 3, 3), np.float32)})
    for content in (b"", b"garbage " * 100, whole.read_bytes()[:-100]):
        path = tmp_path / "x.ckpt"
        path.write_bytes(content)
        assert "cannot be read as a MindSpore checkpoint" in refusal(path)


def test_a_missing_tensor_is_named(source):
    message = refusal(source(lambda tensors: tensors.pop("stages.3.1.transformer.2.attn.qkv.bias")))
    assert "missing tensor stages.3.1.transformer.2.attn.qkv.bias of xx_small" in message


def test_a_checkpoint_without_classifier_is_refused(source):
    assert "missing tensor head.fc.bias of the classifier" in refusal(
        source(lambda tensors: tensors.pop("head.fc.bias"))
    )


def test_a_wrong_shape_is_named(source):
    message = refusal(source(lambda tensors: tensors.update({"stem.conv.weight": np.zeros((16, 3, 5, 5), np.float32)})))
    assert "stem.conv.weight has shape (16, 3, 5, 5), expected (16, 3, 3, 3) for xx_small" in message


def test_a_tensor_too_many_is_named(source):
    message = refusal(source(lambda tensors: tensors.update({"head.fc2.weight": np.zeros(3, np.float32)})))
    assert "unexpected tensor head.fc2.weight: not part of xx_small" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_in_float32_are_refused(source, value):
    def spoil(tensors):
        tensors["final_conv.bn.running_var"] = tensors["final_conv.bn.running_var"].astype(np.float64)
        tensors["final_conv.bn.running_var"][3] = value

    assert "final_conv.bn.running_var contains non-finite values" in refusal(source(spoil))


def test_half_precision_is_widened_and_integers_are_refused(source):
    half = source(lambda tensors: tensors.update({"head.fc.bias": np.arange(7, dtype=np.float16)}))
    imported = convert(half)
    assert imported.tensors["head.bias"].dtype == np.float32
    assert imported.tensors["head.bias"].tolist() == list(range(7))
    whole = source(lambda tensors: tensors.update({"head.fc.bias": np.arange(7)}))
    assert "head.fc.bias has type int64" in refusal(whole)


def test_a_type_that_numpy_lacks_is_refused_or_read(tmp_path):
    path = tmp_path / "x.safetensors"
    header = json.dumps({"stem.bn.weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refusal(path)


def test_another_architecture_is_refused(tmp_path):
    save_file({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, tmp_path / "resnet.safetensors")
    assert "is not a MobileViT of timm, transformers or MindCV" in refusal(tmp_path / "resnet.safetensors")


def test_another_size_is_refused(tmp_path, load_model):
    config = load_model("xx_small", channels=[8, 8, 8, 8, 8], features=[8, 8, 8], hidden=[8, 8, 8], depths=[2, 4, 3])
    save_file(timm(random_weights(config), depths=config.depths), tmp_path / "x.safetensors")
    assert "is not a MobileViT of size xx_small, x_small, small" in refusal(tmp_path / "x.safetensors")
