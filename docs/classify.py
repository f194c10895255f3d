"""Classify an image with an exported network: python classify.py EXPORTED IMAGE. Needs onnxruntime, numpy, pillow."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

about = json.loads(Path(f"{sys.argv[1]}/model.json").read_text(encoding="utf-8"))
short, size = about["input"]["resize_short_side"], about["input"]["size"]
image = Image.open(sys.argv[2]).convert("RGB")
image = image.resize([short * side // min(image.size) for side in image.size], Image.Resampling.BILINEAR)
left, top = [round((side - size) / 2) for side in image.size]
pixels = np.asarray(image.crop((left, top, left + size, top + size)))
logits = onnxruntime.InferenceSession(f"{sys.argv[1]}/model.onnx").run(None, {"images": pixels[None]})[0][0]
powers = np.exp(logits - logits.max())
print(about["class_names"][powers.argmax()], f"{powers.max() / powers.sum():.4f}")
