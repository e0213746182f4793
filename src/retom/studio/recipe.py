"""The same picture without the studio: as Python, and its configuration as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from retom.config import Config
from retom.drawing.bundled import BUNDLED

if TYPE_CHECKING:
    from retom.drawing.generation import Settings
    from retom.drawing.loading import Model


def as_json(config: Config) -> str:
    """A configuration as ``retom.Config.load`` reads it."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def as_python(model: Model, settings: Settings, config: Config) -> str:
    """A script that draws the merged picture; folders are named without what is above them."""
    size = BUNDLED.get(model.name)
    name = model.name if not Path(model.name).is_absolute() else Path(model.name).name
    source = repr(name) if size is None else f"retom_emoji.folder({size})"
    first = "" if size is None else "import retom_emoji\n"
    dtype = "" if str(model.dtype) == "torch.float32" else f", torch_dtype={model.dtype}"
    place = "" if model.device.type == "cpu" else f".to({model.device.type!r})"
    more = (
        ""
        if settings.negative_prompt is None
        else f"        negative_prompt={settings.negative_prompt!r},\n"
    )
    return (
        f"{first}import torch\n"
        "from diffusers import DiffusionPipeline\n\n"
        "import retom\n\n"
        f"pipe = DiffusionPipeline.from_pretrained({source}{dtype}){place}\n"
        f"config = {as_expression(config)}\n"
        "with retom.applied(pipe, config):\n"
        "    image = pipe(\n"
        f"        {settings.prompt!r},\n"
        f"{more}"
        f"        height={settings.height},\n"
        f"        width={settings.width},\n"
        f"        num_inference_steps={settings.steps},\n"
        f"        guidance_scale={settings.guidance!r},\n"
        f"        generator=torch.Generator().manual_seed({settings.seed}),\n"
        "    ).images[0]\n"
        'image.save("merged.png")\n'
    )


def as_expression(config: Config) -> str:
    """A configuration as Python, without what is the default; rules are not written.

    Example:
        >>> as_expression(Config())
        'retom.Config(method=retom.ReToM(ratio=0.5))'
    """
    method = config.method
    kind = type(method).__name__
    place = "retom" if kind == "ReToM" else "retom.methods"
    own = _changed(method, type(method)(), always=("ratio",))
    options = _changed(config, Config(method=method), always=())
    return f"retom.Config({', '.join([f'method={place}.{kind}({own})', *filter(None, [options])])})"


def _changed(instance: object, default: object, *, always: tuple[str, ...]) -> str:
    fields = dataclasses.fields(cast("Any", instance))
    return ", ".join(
        f"{field.name}={getattr(instance, field.name)!r}"
        for field in fields
        if field.name in always or getattr(instance, field.name) != getattr(default, field.name)
    )
