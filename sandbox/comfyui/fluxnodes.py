"""Stand-ins for the nodes of the FLUX.2 klein sketch graph. The sampler draws on the CPU."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from sandbox.comfyui.nodeclass import Inputs, NodeClass, OutOfMemoryError, Outputs, Run
from sandbox.comfyui.nodes import UPSCALE_METHODS, Picture, resized
from sandbox.comfyui.painting.picture import PictureRequest, paint
from sandbox.comfyui.painting.plain import tint

UNETS = ["flux-2-klein-4b-fp8.safetensors", "flux-2-klein-4b.safetensors"]
CLIPS = ["qwen_3_4b.safetensors"]
VAES = ["flux2-vae.safetensors"]
SAMPLERS = ["euler", "euler_ancestral", "heun", "dpmpp_2m", "lcm", "ddim", "uni_pc"]
CLIP_TYPES = ["stable_diffusion", "stable_cascade", "sd3", "flux", "hunyuan_video", "qwen_image", "flux2"]

_PREVIEW_SIZE = 256


@dataclass(frozen=True, slots=True)
class Latent:
    """A picture or, before sampling, only its size."""

    width: int
    height: int
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Prompt text and reference pictures."""

    text: str
    references: tuple[Latent, ...] = ()


def _total_pixels(run: Run, inputs: Inputs) -> Outputs:
    pictures = []
    for picture in inputs["image"]:
        height, width = picture.shape[:2]
        factor = math.sqrt(inputs["megapixels"] * 1024 * 1024 / (width * height))
        step = inputs["resolution_steps"]
        size = [max(step, round(side * factor / step) * step) for side in (width, height)]
        pictures.append(resized(picture, size[0], size[1], inputs["upscale_method"]))
    return (pictures,)


def _image_size(run: Run, inputs: Inputs) -> Outputs:
    height, width = inputs["image"][0].shape[:2]
    return (width, height, len(inputs["image"]))


def _encode_text(run: Run, inputs: Inputs) -> Outputs:
    return (Conditioning(inputs["text"]),)


def _zero_out(run: Run, inputs: Inputs) -> Outputs:
    return (replace(inputs["conditioning"], text=""),)


def _vae_encode(run: Run, inputs: Inputs) -> Outputs:
    picture = inputs["pixels"][0]
    return (Latent(picture.shape[1], picture.shape[0], picture),)


def _reference(run: Run, inputs: Inputs) -> Outputs:
    conditioning: Conditioning = inputs["conditioning"]
    if inputs.get("latent") is None:
        return (conditioning,)
    return (replace(conditioning, references=(*conditioning.references, inputs["latent"])),)


def _empty_latent(run: Run, inputs: Inputs) -> Outputs:
    # A latent cell is 16 pixels wide: sizes round down, as in the original.
    return (Latent(inputs["width"] // 16 * 16, inputs["height"] // 16 * 16),)


def _sample(run: Run, inputs: Inputs) -> Outputs:
    if run.fault("oom"):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (simulated)")
    guide: Conditioning = inputs["guider"]
    size: Latent = inputs["latent_image"]
    if not guide.references or guide.references[0].picture is None:
        raise ValueError("the guider has no reference picture")
    began = time.monotonic()
    sketch = guide.references[0].picture
    request = PictureRequest(sketch, guide.text, inputs["noise"], size.width, size.height)
    picture = tint(request) if run.settings.plain else paint(request)
    pace = run.settings.paint_seconds * run.slowness
    steps = inputs["sigmas"]
    for step in range(1, steps + 1):
        run.wait(began + pace * step / steps - time.monotonic())
        run.progress(step, steps, preview_at(picture, step / steps, inputs["noise"]))
    finished = Latent(size.width, size.height, picture)
    return (finished, finished)


def preview_at(picture: Picture, clearness: float, seed: int) -> bytes:
    """A JPEG of the picture as it emerges from noise; clear at 1."""
    image = Image.fromarray(picture)
    image.thumbnail((_PREVIEW_SIZE, _PREVIEW_SIZE), Image.Resampling.BOX)
    if clearness < 1:
        image = image.filter(ImageFilter.GaussianBlur((1 - clearness) * 14))
        noise = np.random.default_rng([seed, round(clearness * 1000)]).normal(
            0, (1 - clearness) * 48, (image.height, image.width, 3)
        )
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _vae_decode(run: Run, inputs: Inputs) -> Outputs:
    latent: Latent = inputs["samples"]
    if latent.picture is None:
        raise ValueError("nothing was sampled")
    return ([latent.picture],)


def _passed(name: str) -> Callable[[Run, Inputs], Outputs]:
    """Hands on one of its inputs."""
    return lambda _, inputs: (inputs[name],)


def _constant(run: Run, inputs: Inputs) -> Outputs:
    return (next(iter(inputs.values()), None),)


def _loaded(run: Run, inputs: Inputs) -> Outputs:
    """Loads the model file that its first input names."""
    model = next(iter(inputs.values()))
    run.load(model)
    return (model,)


def _declared(
    name: str,
    outputs: Sequence[str],
    run: Any,
    optional: Mapping[str, Sequence[Any]] | None = None,
    **inputs: Sequence[Any],
) -> NodeClass:
    return NodeClass(name=name, outputs=outputs, run=run, inputs=inputs, optional=optional or {})


def flux_nodes() -> list[NodeClass]:
    """Every node class that the sketch graph names and the recordings lack."""
    side = ["INT", {"default": 1024, "min": 16, "max": 16384, "step": 16}]
    return [*_loaders(), *_conditioners(), *_samplers(side)]


def _loaders() -> list[NodeClass]:
    dtypes = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]
    return [
        _declared("UNETLoader", ["MODEL"], _loaded, unet_name=[UNETS, {}], weight_dtype=[dtypes, {}]),
        _declared(
            "CLIPLoader",
            ["CLIP"],
            _loaded,
            {"device": [["default", "cpu"], {"advanced": True}]},
            clip_name=[CLIPS, {}],
            type=[CLIP_TYPES, {}],
        ),
        _declared("VAELoader", ["VAE"], _loaded, vae_name=[VAES, {}]),
        _declared(
            "ImageScaleToTotalPixels",
            ["IMAGE"],
            _total_pixels,
            image=["IMAGE", {}],
            upscale_method=[UPSCALE_METHODS, {}],
            megapixels=["FLOAT", {"default": 1.0, "min": 0.01, "max": 16.0, "step": 0.01}],
            resolution_steps=["INT", {"default": 1, "min": 1, "max": 256}],
        ),
        NodeClass(
            name="GetImageSize",
            outputs=["INT", "INT", "INT"],
            run=_image_size,
            inputs={"image": ["IMAGE", {}]},
            hidden={"unique_id": ["UNIQUE_ID"]},
        ),
    ]


def _conditioners() -> list[NodeClass]:
    conditioning = ["CONDITIONING", {}]
    return [
        _declared(
            "CLIPTextEncode",
            ["CONDITIONING"],
            _encode_text,
            text=["STRING", {"multiline": True, "dynamicPrompts": True}],
            clip=["CLIP", {}],
        ),
        _declared("ConditioningZeroOut", ["CONDITIONING"], _zero_out, conditioning=conditioning),
        _declared("VAEEncode", ["LATENT"], _vae_encode, pixels=["IMAGE", {}], vae=["VAE", {}]),
        _declared(
            "ReferenceLatent",
            ["CONDITIONING"],
            _reference,
            {"latent": ["LATENT", {}]},
            conditioning=conditioning,
        ),
        _declared(
            "CFGGuider",
            ["GUIDER"],
            _passed("positive"),
            model=["MODEL", {}],
            positive=conditioning,
            negative=conditioning,
            cfg=["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}],
        ),
    ]


def _samplers(side: list[Any]) -> list[NodeClass]:
    seed = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}
    batch = {"default": 1, "min": 1, "max": 4096}
    return [
        _declared("RandomNoise", ["NOISE"], _passed("noise_seed"), noise_seed=["INT", seed]),
        _declared("KSamplerSelect", ["SAMPLER"], _constant, sampler_name=[SAMPLERS, {}]),
        _declared(
            "Flux2Scheduler",
            ["SIGMAS"],
            _passed("steps"),
            steps=["INT", {"default": 20, "min": 1, "max": 4096}],
            width=side,
            height=side,
        ),
        _declared(
            "EmptyFlux2LatentImage",
            ["LATENT"],
            _empty_latent,
            width=side,
            height=side,
            batch_size=["INT", batch],
        ),
        _declared(
            "SamplerCustomAdvanced",
            ["LATENT", "LATENT"],
            _sample,
            noise=["NOISE", {}],
            guider=["GUIDER", {}],
            sampler=["SAMPLER", {}],
            sigmas=["SIGMAS", {}],
            latent_image=["LATENT", {}],
        ),
        _declared("VAEDecode", ["IMAGE"], _vae_decode, samples=["LATENT", {}], vae=["VAE", {}]),
    ]
