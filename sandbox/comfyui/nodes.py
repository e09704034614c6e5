"""The node classes of the recordings: loading, scaling, inverting, saving, and two test nodes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from sandbox.comfyui.nodeclass import Folders, Inputs, NodeClass, OutOfMemoryError, Outputs, Run, Ui

Picture = NDArray[np.uint8]
"""Height x width x 3, sRGB. An IMAGE value is a list of these."""

UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
_RESAMPLING = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_SIZE = {"default": 512, "min": 1, "max": 16384, "step": 1}


def resized(picture: Picture, width: int, height: int, method: str) -> Picture:
    """Scale a picture by one of ComfyUI's methods."""
    image = Image.fromarray(picture).resize((width, height), _RESAMPLING[method])
    return np.asarray(image)


def _empty_image(run: Run, inputs: Inputs) -> Outputs:
    colour = inputs["color"]
    pixel = [colour >> 16 & 255, colour >> 8 & 255, colour & 255]
    blank = np.full((inputs["height"], inputs["width"], 3), pixel, dtype=np.uint8)
    return ([blank] * inputs["batch_size"],)


def _load_image(run: Run, inputs: Inputs) -> Outputs:
    if _asked_to_fail(run):
        raise ValueError(f"the prompt asks for a failure ({run.settings.fail_word})")
    path = run.settings.folders.input / inputs["image"]
    with Image.open(path) as image:
        picture = np.asarray(image.convert("RGB"))
    return ([picture], None)


def _asked_to_fail(run: Run) -> bool:
    """Whether a text of this prompt has the fail word. As a bad sketch would, it fails where that is loaded."""
    texts = (str(value).lower() for node in run.graph.values() for value in node["inputs"].values())
    return bool(run.settings.fail_word) and any(run.settings.fail_word in text for text in texts)


def _image_files(folders: Folders) -> Mapping[str, Sequence[Any]]:
    files = sorted(entry.name for entry in folders.input.iterdir() if entry.is_file())
    return {"image": [files, {"image_upload": True}]}


def _image_complaint(folders: Folders, inputs: Inputs) -> str | None:
    path = (folders.input / str(inputs["image"])).resolve()
    if path.is_relative_to(folders.input.resolve()) and path.is_file():
        return None
    return f"Invalid image file: {inputs['image']}"


def _image_digest(folders: Folders, inputs: Inputs) -> str:
    path = folders.input / str(inputs.get("image", ""))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _image_scale(run: Run, inputs: Inputs) -> Outputs:
    width, height, method = inputs["width"], inputs["height"], inputs["upscale_method"]
    return ([resized(picture, width, height, method) for picture in inputs["image"]],)


def _image_invert(run: Run, inputs: Inputs) -> Outputs:
    return ([255 - picture for picture in inputs["image"]],)


def _save_image(run: Run, inputs: Inputs) -> Ui:
    folder, stem, subfolder = _output_place(run.settings.folders, inputs["filename_prefix"])
    names = []
    for picture in inputs["images"]:
        name = f"{stem}_{_next_number(folder, stem):05}_.png"
        temporary = folder / f".{name}.part"
        temporary.write_bytes(_encoded(run, picture))
        temporary.replace(folder / name)
        names.append({"filename": name, "subfolder": subfolder, "type": "output"})
    return Ui({"images": names})


def _encoded(run: Run, picture: Picture) -> bytes:
    if run.fault("black_image"):
        picture = np.zeros_like(picture)
    # Like the original: the prompt goes into the file, so whoever publishes it must strip it.
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(run.graph))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", pnginfo=info, compress_level=1)
    return buffer.getvalue()


def _output_place(folders: Folders, prefix: str) -> tuple[Path, str, str]:
    subfolder, stem = os.path.split(os.path.normpath(prefix))
    folder = (folders.output / subfolder).resolve()
    if not folder.is_relative_to(folders.output.resolve()):
        raise ValueError("ERROR: Saving image outside the output folder is not allowed.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder, stem, subfolder


def _next_number(folder: Path, stem: str) -> int:
    pattern = re.compile(re.escape(stem) + r"_(\d+)_?\.", re.IGNORECASE)
    taken = [int(found[1]) for entry in os.scandir(folder) if (found := pattern.match(entry.name))]
    return max(taken, default=0) + 1


def _save_image_websocket(run: Run, inputs: Inputs) -> Ui:
    pictures = inputs["images"]
    for step, picture in enumerate(pictures):
        run.send_image(_encoded(run, picture), "image/png", step, len(pictures))
    return Ui({})


def _test_sleep(run: Run, inputs: Inputs) -> Outputs:
    steps = inputs["steps"]
    began = time.monotonic()
    for step in range(1, steps + 1):
        run.wait(began + inputs["seconds"] * step / steps - time.monotonic())
        preview = _checkerboard(step) if inputs["preview"] else None
        run.progress(step, steps, preview)
    return (inputs["image"],)


def _checkerboard(step: int) -> bytes:
    tile = np.indices((64, 64)).sum(axis=0) // 8 % 2 * 50 * step % 256
    buffer = io.BytesIO()
    Image.fromarray(tile.astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _test_fail(run: Run, inputs: Inputs) -> Outputs:
    match inputs["kind"]:
        case "exit":
            # A dying process takes its time, and accepts requests until then.
            run.wait(0.5)
            os._exit(1)
        case "OOM":
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (simulated)")
        case _:
            raise ValueError("simulated failure")


def basic_nodes() -> list[NodeClass]:
    """The node classes that need no model."""
    return [*_image_nodes(), *_saving_nodes(), *_test_nodes()]


def _image_nodes() -> list[NodeClass]:
    image = ["IMAGE", {}]
    return [
        NodeClass(
            name="EmptyImage",
            inputs={
                "width": ["INT", _SIZE],
                "height": ["INT", _SIZE],
                "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
                "color": ["INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}],
            },
            outputs=("IMAGE",),
            run=_empty_image,
            category="image",
        ),
        NodeClass(
            name="LoadImage",
            live_inputs=_image_files,
            outputs=("IMAGE", "MASK"),
            run=_load_image,
            complaint=_image_complaint,
            fingerprint=_image_digest,
            checks_itself=frozenset({"image"}),
            category="image",
        ),
        NodeClass(
            name="ImageScale",
            inputs={
                "image": image,
                "upscale_method": [UPSCALE_METHODS, {}],
                "width": ["INT", {"default": 512, "min": 0, "max": 16384, "step": 1}],
                "height": ["INT", {"default": 512, "min": 0, "max": 16384, "step": 1}],
                "crop": [["disabled", "center"], {}],
            },
            outputs=("IMAGE",),
            run=_image_scale,
            category="image/upscaling",
        ),
        NodeClass(name="ImageInvert", inputs={"image": image}, outputs=("IMAGE",), run=_image_invert),
    ]


def _saving_nodes() -> list[NodeClass]:
    image = ["IMAGE", {}]
    return [
        NodeClass(
            name="SaveImage",
            inputs={"images": image, "filename_prefix": ["STRING", {"default": "ComfyUI"}]},
            hidden={"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
            run=_save_image,
            output_node=True,
            category="image",
        ),
        NodeClass(
            name="SaveImageWebsocket",
            inputs={"images": image},
            run=_save_image_websocket,
            output_node=True,
            category="api/image",
        ),
    ]


def _test_nodes() -> list[NodeClass]:
    image = ["IMAGE", {}]
    seed = ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}]
    return [
        NodeClass(
            name="TestSleep",
            inputs={
                "seconds": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 600.0}],
                "steps": ["INT", {"default": 4, "min": 1, "max": 1000}],
                "seed": seed,
                "honour_interrupt": ["BOOLEAN", {"default": True}],
                "preview": ["BOOLEAN", {"default": False}],
                "image": image,
            },
            outputs=("IMAGE",),
            run=_test_sleep,
        ),
        NodeClass(
            name="TestFail",
            inputs={
                "kind": ["STRING", {"default": "ValueError"}],
                "seed": seed,
                "image": image,
            },
            outputs=("IMAGE",),
            run=_test_fail,
        ),
    ]
