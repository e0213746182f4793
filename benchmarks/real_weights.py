"""FID and CLIP score with published weights, for people who have the weights, the data and a GPU.

Two protocols. ``imagenet``: pictures of the ImageNet classes, two a class, 2,000 in all, against
validation pictures that you give (5,000, five a class), as tomesd was measured; 50 PLMS steps
for Stable Diffusion 1.5. ``coco``: one picture for each caption that you give, against the pictures
that belong to them. The words around a class name are an option, because numbers depend on them:
the result says which were used.

FID is Inception's of torchmetrics, CLIP score that of transformers: the standard numbers, through
retom.metrics.adapters. They download their networks, this script downloads nothing itself. Each
contender draws the same prompts from the same noise; what counts is the difference between
contenders of one run: numbers of other labs differ by more than the methods do.

Killed and started again it continues. ``--json`` writes the result, stdout ends with a block that
can be pasted into an issue. ``--rehearse`` runs all of it in minutes on a CPU, with a bundled
model, a few pictures and networks of random weights: its numbers mean nothing, and it says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from record import progress, write_json
from torch import nn

import retom
from retom.drawing.loading import Model, load_model, quiet_libraries
from retom.evaluation.contenders import Contender, contenders
from retom.evaluation.pairs import paired
from retom.evaluation.provenance import provenance
from retom.evaluation.screening import time_calls
from retom.evaluation.settings import Sample, Settings
from retom.evaluation.store import Store, key_of
from retom.evaluation.subject import Subject
from retom.evaluation.timing import ratio_estimate
from retom.metrics.adapters import clip_score, inception_fid
from retom.models import find_denoiser, layout_of

UNMERGED = "un-merged"
CLIP = "openai/clip-vit-base-patch16"
KINDS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Preset:
    """How a model is usually drawn with; ``scheduler``: a class of diffusers, None for its own."""

    steps: int
    guidance: float
    side: int
    scheduler: str | None = None


PRESETS = {
    "sd15": Preset(50, 7.5, 512, "PNDMScheduler"),
    "sdxl": Preset(30, 5.0, 1024),
    "flux": Preset(28, 3.5, 1024),
}


class PictureFiles(list[Path]):
    """Paths that give pictures when they are sliced, so that thousands need not be in memory.

    Args:
        paths: Of pictures.
        side: They are cropped at the centre to a square and resized to it.
    """

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        super().__init__(paths)
        self._side = side

    def __getitem__(self, where: Any) -> Any:  # noqa: ANN401 - as a list has it
        from PIL import Image, ImageOps

        if not isinstance(where, slice):
            return super().__getitem__(where)
        size = (self._side, self._side)
        found: list[Image.Image] = []
        for path in super().__getitem__(where):
            with Image.open(path) as image:
                found.append(ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC))
        return found


def prompts_of(options: argparse.Namespace) -> list[str]:
    """The prompts of the protocol, one a picture.

    Raises:
        SystemExit: A file is missing or is not what it should be.
    """
    file = options.classes if options.protocol == "imagenet" else options.captions
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{file} cannot be read as text: {error}.") from error
    if file.suffix == ".json":  # as COCO has them; the first caption of each picture
        try:
            entries = json.loads(text)["annotations"]
            first = {e["image_id"]: " ".join(e["caption"].split()) for e in reversed(entries)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SystemExit(
                f"{file} is not what COCO has: an object with a list of annotations, each with an "
                "image_id and a caption."
            ) from error
        lines = [first[name] for name in sorted(first)]
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    if options.protocol == "imagenet":
        classes = [line.split(",")[0] for line in lines]
        if len(classes) != 1000 and not options.rehearse:
            raise SystemExit(f"ImageNet has 1000 classes; {file} has {len(classes)}, one a line.")
        lines = [options.template.format(name) for _ in range(options.each) for name in classes]
    return lines[: options.limit] if options.limit else lines


def chunks_of(prompts: Sequence[str], batch: int, seed: int) -> list[tuple[Sample, ...]]:
    """Samples in batches; picture i starts from noise seed + i whatever the batch."""
    samples = [Sample(prompt, seed + place, place) for place, prompt in enumerate(prompts)]
    return [tuple(samples[start : start + batch]) for start in range(0, len(samples), batch)]


@dataclass(frozen=True)
class Networks:
    """What FID and CLIP score are computed with; None for the standard ones."""

    inception: nn.Module | None = None
    clip: Any = None
    processor: Any = None
    label: str = f"Inception-v3 (torchmetrics), CLIP {CLIP}"


class Run:
    """Draws what is missing and measures it, contender by contender."""

    def __init__(
        self, subject: Subject, options: argparse.Namespace, prompts: list[str], networks: Networks
    ) -> None:
        self.subject, self.store, self.options = subject, subject.store, options
        self.prompts, self.networks = prompts, networks
        self.chunks = chunks_of(prompts, options.batch, options.seed)
        paths = (p for p in options.real.rglob("*") if p.suffix.lower() in KINDS)
        self.real = PictureFiles(sorted(paths), subject.height)
        if len(self.real) < 2:
            raise SystemExit(f"{options.real} holds {len(self.real)} pictures.")

    def draw(self, every: Sequence[Contender | None]) -> None:
        """All pictures; batches outside, so that contenders grow alike."""
        for number, chunk in enumerate(self.chunks, start=1):
            for contender in every:
                self.subject.drawn(chunk, contender)
            progress(f"[pictures {number * len(chunk)}/{len(self.prompts)} x {len(every)}]")

    def measure(self, contender: Contender | None) -> dict[str, Any]:
        """FID, CLIP score and, for a contender, PSNR and speed; each kept once it is there."""
        keys = [self.subject.pictures_key(chunk, contender) for chunk in self.chunks]
        paths = [path for key in keys for path in self.store.picture_paths(key)]
        pictures = PictureFiles(paths, self.subject.height)
        content = {"pictures": keys, "networks": self.networks.label}
        found: dict[str, Any] = {"n": len(pictures)}
        real = [f"{path.name}:{path.stat().st_size}" for path in self.real]
        for name, own, measure in (
            ("FID", {**content, "real": real}, lambda: self._fid(pictures)),
            ("CLIP score", content, lambda: self._clip(pictures)),
        ):
            key = key_of(name.replace(" ", "-"), own)
            if not self.store.has_record(key):
                self.store.add_record(key, {}, {"value": measure()})
            found[name] = self.store.record(key)["values"]["value"]
        if contender is not None:
            found |= self._beside_unmerged(contender, keys)
        return found

    def _fid(self, pictures: PictureFiles) -> float:
        batch = 8 if self.options.rehearse else 32
        network = self.networks.inception
        return inception_fid(pictures, self.real, network=network, batch_size=batch)

    def _clip(self, pictures: PictureFiles) -> float:
        given: dict[str, Any] = {"model": self.networks.clip or CLIP}
        if self.networks.processor is not None:
            given["processor"] = self.networks.processor
        return float(clip_score(pictures, self.prompts, **given).mean())

    def _beside_unmerged(self, contender: Contender, keys: list[str]) -> dict[str, Any]:
        references = [self.subject.pictures_key(chunk, None) for chunk in self.chunks]
        values = [
            value
            for key, reference in zip(keys, references, strict=True)
            for value in paired(self.store, key, reference, None)["psnr"]
        ]
        pair = self.chunks[0][:2]
        timing = time_calls(self.subject, pair, contender, self.store.source["hardware"])
        seconds = self.store.record(timing)["values"]
        speed = ratio_estimate(seconds["unmerged_s"], seconds["merged_s"], "speed-up")
        return {"PSNR": sum(values) / len(values), "speed-up": asdict(speed)}


def block(results: dict[str, Any], source: dict[str, Any]) -> str:
    """The result as text for an issue."""
    settings, hardware = results["settings"], source["hardware"]
    lines = [
        f"### Real weights: {settings['model']}, {settings['protocol']}",
        "",
        *(["**A rehearsal: random networks, numbers mean nothing.**", ""] if results["rehearsal"]
          else []),
        f"{results['n']} pictures against {results['real']} real ones, {settings['steps']} steps, "
        f"guidance {settings['guidance']:g}, {settings['height']}x{settings['width']} px, "
        f"{settings['dtype']}; {results['networks']}; prompts like {results['prompt']!r}.",
        "",
        "| contender | FID | minus un-merged | CLIP score | PSNR (dB) | speed-up |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    base = results["rows"][UNMERGED]
    for name, row in results["rows"].items():
        speed = row.get("speed-up")
        cells = [
            name,
            f"{row['FID']:.2f}",
            "" if row is base else f"{row['FID'] - base['FID']:+.2f}",
            f"{row['CLIP score']:.2f}",
            f"{row['PSNR']:.2f}" if "PSNR" in row else "",
            f"{speed['value']:.2f} [{speed['low']:.2f}, {speed['high']:.2f}]" if speed else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    versions = ", ".join(f"{k} {v}" for k, v in source["versions"].items() if v)
    return "\n".join(
        [
            *lines,
            "",
            "FID is biased at this n and has no interval here: compare rows of this table alone.",
            f"`{source['command']}`; commit {str(source['commit'])[:12]}, {source['time_utc']}; "
            f"{hardware['device']}, {hardware['cpu']}; {versions}.",
        ]
    )


def rehearsal_networks() -> Networks:
    """Random networks of the right kind, so that nothing is downloaded."""
    from transformers import CLIPConfig, CLIPModel

    class Means(nn.Module):
        num_features = 6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)

    def processor(*, text: list[str], images: list[Any], **_: object) -> dict[str, torch.Tensor]:
        ids = torch.tensor([[2 + ord(word[0]) % 30, 3 + len(word) % 30, 1] for word in text])
        pixels = torch.stack([torch.from_numpy(image.copy()).movedim(-1, 0) for image in images])
        small = nn.functional.interpolate(pixels.float() / 255, (8, 8))
        return {"input_ids": ids, "pixel_values": small}

    torch.manual_seed(0)
    layer = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text = {**layer, "num_attention_heads": 2, "vocab_size": 40, "eos_token_id": 1}
    vision = {**layer, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return Networks(Means(), CLIPModel(config), processor, "random networks of a rehearsal")


def rehearsal_data(folder: Path, protocol: str) -> tuple[Path, Path]:
    """A file of classes or captions, and a folder of pictures that stand for real ones."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    captions = [{"image_id": i, "caption": f"picture {i}"} for i in range(4)]
    texts = folder / ("classes.txt" if protocol == "imagenet" else "captions.json")
    written = "a lemon\ncherries\n" if protocol == "imagenet" else json.dumps(
        {"annotations": captions}
    )  # fmt: skip
    texts.write_text(written, encoding="utf-8")
    real = folder / "real"
    real.mkdir(exist_ok=True)
    for place in range(8):
        Image.new("RGB", (40, 30), (30 * place, 90, 220 - 20 * place)).save(real / f"{place}.png")
    return texts, real


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and complete the options."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--preset", choices=PRESETS, default="sd15")
    made.add_argument("--model", help="a diffusers folder or hub id of the preset's kind")
    made.add_argument("--protocol", choices=("imagenet", "coco"), default="imagenet")
    made.add_argument("--classes", type=Path, metavar="FILE", help="names, one a line; imagenet")
    made.add_argument("--template", default="a photo of a {}", help="of the imagenet prompts")
    made.add_argument("--each", type=int, default=2, help="pictures a class; imagenet")
    made.add_argument("--captions", type=Path, metavar="FILE", help="COCO's JSON, or one a line")
    made.add_argument("--real", type=Path, metavar="DIR", help="real pictures")
    made.add_argument("--limit", type=int, help="this many pictures at most")
    made.add_argument(
        "--methods", nargs="+", metavar="SPEC", help="by default retom, and tomesd in a UNet"
    )
    made.add_argument("--ratios", type=float, nargs="+", default=[0.5])
    made.add_argument("--levels", type=int, default=1, help="how many of the largest grids merge")
    made.add_argument("--batch", type=int, default=8, help="even")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto")
    made.add_argument("--work", type=Path, metavar="DIR", help="where pictures grow")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    made.add_argument("--rehearse", action="store_true")
    options = made.parse_args(argv)
    if options.rehearse:
        options.work = options.work or Path(tempfile.mkdtemp(prefix="real-weights-"))
        texts, options.real = rehearsal_data(options.work / "data", options.protocol)
        options.classes = options.captions = texts
        options.batch = 2
        return options
    needed = {
        "--model": options.model,
        "--work": options.work,
        "--real": options.real,
        "--classes" if options.protocol == "imagenet" else "--captions": (
            options.classes if options.protocol == "imagenet" else options.captions
        ),
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        made.error(f"{', '.join(missing)} needed; --rehearse needs nothing")
    return options


def load(options: argparse.Namespace) -> tuple[Model, Preset]:
    """The pipeline and how to draw with it."""
    preset = PRESETS[options.preset]
    with quiet_libraries():
        name = options.model or "retom-emoji-128"
        model = load_model(name, device=options.device, dtype=options.dtype)
    if options.rehearse:
        side = (model.default_size or (128, 128))[0]
        return model, Preset(2, model.guidance, side)
    if preset.scheduler is not None:
        import diffusers

        scheduler = getattr(diffusers, preset.scheduler)
        model.pipe.scheduler = scheduler.from_config(model.pipe.scheduler.config)
    return model, preset


def lineup(
    methods: Sequence[str] | None, settings: Settings, scopes: Sequence[str]
) -> Iterator[Contender | None]:
    """Un-merged first, then every method at every ratio, in the first of a model's scopes."""
    if methods is None:  # tomesd knows the layers of UNets alone
        methods = ["retom", "tomesd"] if scopes[0] == "attention" else ["retom"]
    yield None
    yield from contenders(methods, settings, auto=scopes[0])


def main(argv: Sequence[str]) -> int:
    """Draw what is missing, measure what is missing, print the block."""
    options = arguments(argv)
    prompts = prompts_of(options)
    if len(prompts) % 2 or options.batch % 2:
        raise SystemExit(
            f"An even number of pictures in even batches is needed; there are {len(prompts)} in "
            f"batches of {options.batch}. Use --limit and --batch."
        )
    try:
        return run(options, prompts, argv)
    except retom.RetomError as error:
        raise SystemExit(str(error)) from error


def run(options: argparse.Namespace, prompts: list[str], argv: Sequence[str]) -> int:
    """The whole of it, the options being right."""
    model, preset = load(options)
    settings = Settings(
        prompts=tuple(dict.fromkeys((*prompts, UNMERGED)))[:2],
        ratios=options.ratios,
        levels=tuple(range(options.levels)),
        steps=preset.steps,
        guidance=preset.guidance,
        height=preset.side,
        width=preset.side,
        rounds=2 if options.rehearse else 9,
        noise_levels=1,
    )
    source = provenance(["python", "benchmarks/real_weights.py", *argv], model.device)
    networks = rehearsal_networks() if options.rehearse else Networks()
    with Store(options.work, source) as store:
        subject = Subject(model, settings, store)
        measuring = Run(subject, options, prompts, networks)
        every = list(lineup(options.methods, settings, layout_of(find_denoiser(model.pipe)).scopes))
        measuring.draw(every)
        rows: dict[str, Any] = {}
        for contender in every:
            name = UNMERGED if contender is None else contender.name
            rows[name] = measuring.measure(contender)
            progress(f"[measured {name}]")
        results = {
            "rehearsal": options.rehearse,
            "settings": {
                **subject.content,
                "model": f"{Path(model.name).name} ({subject.content['model']})",
                "protocol": options.protocol,
                "levels": options.levels,
                "seed": options.seed,
            },
            "n": len(prompts),
            "real": len(measuring.real),
            "networks": networks.label,
            "prompt": prompts[0],
            "rows": rows,
        }
    write_json(options.json, "real_weights", source, results)
    print(block(results, source))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
