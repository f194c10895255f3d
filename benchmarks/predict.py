"""Predict benchmark: images per second of task=predict on files, beside those of task=benchmark, which reads none.

    python benchmarks/predict.py [--model xx_small] [--images 10000] [--image-size 256] [--batch 32] [--rounds 5]

The files are generated JPEGs of the image size, resized and cropped as those of data=imagefolder are. A round predicts
all of them, with a benchmark before and after. A ratio is the throughput of the prediction over the mean of the two
benchmarks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

from benchmarks.machine import commit, cpu_model, positive
from benchmarks.runs import launch, metrics_of
from mvit.data.generated import write_image_folder

CLASSES = 10


def trained(model: str, *, image_size: int, folder: Path) -> Path:
    """A run folder with the weights of one step on a few image files."""
    files = write_image_folder(folder / "few", classes=CLASSES, train=16, val=16, size=(image_size, image_size))
    launch(
        f"model={model}", "data=imagefolder", f"data.root={files}", f"data.image_size={image_size}",
        "train.global_batch_size=16", "train.max_steps=1", "tracking=none", f"runs_dir={folder}/runs",
    )  # fmt: skip
    (result,) = folder.glob("runs/*/*/result.json")
    return result.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="xx_small")
    parser.add_argument("--images", type=positive, default=10_000)
    parser.add_argument("--image-size", type=positive, default=256)
    parser.add_argument("--batch", type=positive, default=32)
    parser.add_argument("--rounds", type=positive, default=5)
    arguments = parser.parse_args()
    model, size, batch = arguments.model, arguments.image_size, arguments.batch
    print(f"{cpu_model()}; commit {commit()}", flush=True)

    def benchmark() -> float:
        (speed,) = (
            value
            for name, value in metrics_of(
                "task=benchmark", "task.modes=[inference]", f"task.batch_sizes=[{batch}]",
                f"task.image_sizes=[{size}]", f"model={model}", f"model.num_classes={CLASSES}",
            ).items()
            if name.startswith("benchmark/") and name.endswith("/images_per_s")
        )  # fmt: skip
        return speed

    with TemporaryDirectory() as folder:
        files = write_image_folder(
            Path(folder) / "many", classes=CLASSES, train=CLASSES, val=arguments.images, size=(size, size)
        )
        weights = trained(model, image_size=size, folder=Path(folder))
        benchmarks, ratios = [benchmark()], list[float]()
        print("| round | benchmark, img/s | predict, img/s | ratio |\n|--:|--:|--:|--:|")
        for number in range(1, arguments.rounds + 1):
            metrics = metrics_of(
                "task=predict", f"task.checkpoint={weights}", f"data.images={files}/val", f"task.batch_size={batch}"
            )
            assert metrics["predict/images"] == arguments.images
            predicted = metrics["perf/images_per_s"]
            benchmarks.append(benchmark())
            reference = mean(benchmarks[-2:])
            ratios.append(predicted / reference)
            print(f"| {number} | {reference:.1f} | {predicted:.1f} | {ratios[-1]:.3f} |", flush=True)
    print(f"predict over benchmark: {median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}), {len(ratios)} rounds")


if __name__ == "__main__":
    main()
