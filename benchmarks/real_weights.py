"""FID and CLIP score with published weights, for people who have the weights, the data and a GPU.

Two protocols. ``imagenet``: pictures of the ImageNet classes, two a class, 2,000 in all, against
validation pictures that you give (5,000, five a class), as tomesd was measured; 50 PLMS steps
for Stable Diffusion 1.5. ``coco``: one picture for each caption that you give, against the pictures
that belong to them. The words around a class name are an option, because numbers depend on them:
the result says which were used.

FID is on torchmetrics' Inception, CLIP score that of transformers: the standard numbers, through
retom.metrics.adapters. They download their networks, this script downloads nothing itself. Each
contender draws the same prompts from the same noise; what counts is the difference between
contenders of one run, with its paired interval, beside that of un-merged pictures at another seed:
numbers of other labs differ by more than the methods do.

Killed and started again it continues. ``--json`` writes the result, stdout ends with a block that
can be pasted into an issue. ``--rehearse`` runs all of it in minutes on a CPU, with a bundled
model, a few pictures and networks of random weights: its numbers mean nothing, and it says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rehearsal
import torch
from record import progress, write_json

import retom
from retom.drawing.loading import Model, load_model, quiet_libraries
from retom.evaluation.contenders import Contender, contenders
from retom.evaluation.pairs import features, paired
from retom.evaluation.provenance import provenance
from retom.evaluation.results import FLOOR, UNMERGED, difference, over_prompts
from retom.evaluation.sets import Reference, kept, real_pictures
from retom.evaluation.settings import SEED_STRIDE, Sample, Settings
from retom.evaluation.store import Store, key_of
from retom.evaluation.subject import Subject
from retom.evaluation.tables import between
from retom.evaluation.timed_calls import time_calls
from retom.evaluation.timing import ratio_estimate
from retom.evaluation.tomesd import tomesd_installed
from retom.metrics import Estimate, Extractor, Features, fid, fid_difference
from retom.metrics.adapters import InceptionFeatures, clip_score
from retom.models import find_denoiser, layout_of

CLIP = "openai/clip-vit-base-patch16"


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
    """Samples in batches; picture i starts from noise seed + i whatever the batch.

    Pictures of one prompt are one group: intervals are over prompts.
    """
    groups = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    samples = [Sample(p, seed + place, groups[p]) for place, p in enumerate(prompts)]
    return [tuple(samples[start : start + batch]) for start in range(0, len(samples), batch)]


@dataclass(frozen=True)
class Networks:
    """What FID and CLIP score are computed with."""

    extractor: Extractor
    clip: torch.nn.Module
    processor: Callable[..., Any]
    label: str


def standard_networks(device: torch.device) -> Networks:
    """Inception and CLIP, loaded before anything is drawn: what is missing is found out at once."""
    from transformers import CLIPModel, CLIPProcessor

    clip: Any = CLIPModel.from_pretrained(CLIP)
    extractor = InceptionFeatures(device=device)
    label = f"{extractor.name}, CLIP {CLIP}"
    return Networks(extractor, clip.to(device), CLIPProcessor.from_pretrained(CLIP), label)


@dataclass(frozen=True)
class Row:
    """Pictures that are measured: a contender's, or un-merged ones at one of two seeds."""

    name: str
    contender: Contender | None
    chunks: list[tuple[Sample, ...]]


class Run:
    """Draws what is missing and measures it, row by row."""

    def __init__(
        self, subject: Subject, options: argparse.Namespace, prompts: list[str], networks: Networks
    ) -> None:
        self.subject, self.store, self.options = subject, subject.store, options
        self.networks = networks
        self.chunks = chunks_of(prompts, options.batch, options.seed)
        self.again = chunks_of(prompts, options.batch, options.seed + SEED_STRIDE)
        self.samples = [sample for chunk in self.chunks for sample in chunk]
        size = subject.height, subject.width
        self.real: Reference = real_pictures(self.store, options.real, networks.extractor, size)
        self.resamples = 10 if options.rehearse else 100

    def rows(self, every: Sequence[Contender | None]) -> list[Row]:
        """Un-merged at both seeds, and the contenders."""
        found = [Row(c.name if c else UNMERGED, c, self.chunks) for c in every]
        return [*found[:1], Row(FLOOR, None, self.again), *found[1:]]

    def draw(self, rows: Sequence[Row]) -> None:
        """All pictures; batches outside, so that rows grow alike."""
        for number in range(len(self.chunks)):
            for row in rows:
                self.subject.drawn(row.chunks[number], row.contender)
            progress(f"[batch {number + 1} of {len(self.chunks)}, {len(rows)} rows]")

    def measure(self, row: Row, whole: Row, baseline: Row | None) -> dict[str, Any]:
        """FID and CLIP score, their differences to un-merged and to a baseline; PSNR and speed.

        Args:
            row: What is measured.
            whole: The un-merged row.
            baseline: The row of the same ratio and scope that claims are against.
        """
        clip = self._clip(row)
        found: dict[str, Any] = {
            "FID": self._fid(row, None),
            "CLIP score": over_prompts(clip, self.samples, "CLIP score"),
        }
        for name, other in ((UNMERGED, whole), ("baseline", baseline)):
            if other is not None and other is not row:
                found[f"FID minus {name}"] = self._fid(row, other)
                found[f"CLIP score minus {name}"] = difference(
                    clip, self._clip(other), self.samples, "CLIP score"
                )
        if row is not whole:
            values = [
                value
                for chunk, plain in zip(row.chunks, whole.chunks, strict=True)
                for value in paired(
                    self.store, self._key(chunk, row), self._key(plain, whole), None
                )["psnr"]
            ]
            found["PSNR"] = over_prompts(values, self.samples, "PSNR (dB)")
        if row.contender is not None:
            pair = self.chunks[0][:2]
            hardware = self.store.source["hardware"]
            timing = time_calls(self.subject, pair, row.contender, hardware)
            seconds = self.store.record(timing)["values"]
            found["speed-up"] = ratio_estimate(
                seconds["unmerged_s"], seconds["merged_s"], "speed-up"
            )
        return {name: asdict(estimate) for name, estimate in found.items()}

    def _key(self, chunk: Sequence[Sample], row: Row) -> str:
        return self.subject.pictures_key(chunk, row.contender)

    def _features(self, row: Row) -> Features:
        extractor = self.networks.extractor
        keys = [self._key(chunk, row) for chunk in row.chunks]
        values = torch.cat([features(self.store, key, extractor) for key in keys])
        return Features(values, extractor.name)

    def _fid(self, row: Row, other: Row | None) -> Estimate:
        """FID to the real pictures, or by how much it differs from another row's; kept."""
        content: dict[str, Any] = {
            "measure": "FID",
            "pictures": [self._key(chunk, row) for chunk in row.chunks],
            "other": other and [self._key(chunk, other) for chunk in other.chunks],
            "extractor": self.networks.extractor.name,
            "real": self.real.digest,
            "resamples": self.resamples,
        }

        def measure() -> Estimate:
            own, real, resamples = self._features(row), self.real.features, self.resamples
            if other is None:
                return fid(own, real, resamples=resamples)
            return fid_difference(own, self._features(other), real, resamples=resamples)

        return kept(self.store, content, measure)

    def _clip(self, row: Row) -> list[float]:
        """CLIP score of every picture; kept batch by batch."""
        scores: list[float] = []
        for chunk in row.chunks:
            content = {"pictures": self._key(chunk, row), "networks": self.networks.label}
            key = key_of("CLIP", content)
            if not self.store.has_record(key):
                found = clip_score(
                    self.store.pictures(content["pictures"]),
                    [sample.prompt for sample in chunk],
                    model=self.networks.clip,
                    processor=self.networks.processor,
                )
                self.store.add_record(key, content, {"scores": found.tolist()})
            scores += self.store.record(key)["values"]["scores"]
        return scores


def baseline_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """tomesd, else ToMe, of the same ratio and scope: what the claim of the paper is against."""
    own = row.contender
    if own is None:
        return None
    alike = {
        other.method: each
        for each in rows
        if (other := each.contender) and (other.ratio, other.scope) == (own.ratio, own.scope)
    }
    return alike.get("tomesd") or alike.get("tome")


def block(results: dict[str, Any], source: dict[str, Any]) -> str:
    """The result as text for an issue."""
    settings, hardware = results["settings"], source["hardware"]
    measures = {
        "FID": 2, "FID minus un-merged": 2, "FID minus baseline": 2, "CLIP score": 2,
        "CLIP score minus un-merged": 2, "CLIP score minus baseline": 2, "PSNR": 2, "speed-up": 2,
    }  # fmt: skip
    shown = [name for name in measures if any(name in row for row in results["rows"].values())]
    titles = [name.replace("baseline", str(results["baseline"])) for name in shown]
    lines = [
        f"### Real weights: {settings['model']}, {settings['protocol']}",
        "",
        *(["**A rehearsal: random networks, numbers mean nothing.**", ""] if results["rehearsal"]
          else []),
        f"{results['n']} pictures against {results['real']} real ones, {settings['steps']} steps, "
        f"guidance {settings['guidance']:g}, {settings['height']}x{settings['width']} px, "
        f"{settings['dtype']}; {results['networks']}; prompts like {results['prompt']!r}.",
        "",
        f"| contender | {' | '.join(titles)} |",
        f"| :-- |{' --: |' * len(titles)}",
    ]  # fmt: skip
    for name, row in results["rows"].items():
        cells = [name]
        for measure in shown:
            estimate = Estimate(**row[measure]) if measure in row else None
            text = between(estimate, measures[measure], signed=" minus " in measure)
            if measure == "FID minus baseline" and estimate is not None:
                share = estimate.value / (row["FID"]["value"] - estimate.value)
                text += f" ({share:+.1%})"
            cells.append(text)
        lines.append(f"| {' | '.join(cells)} |")
    versions = ", ".join(f"{k} {v}" for k, v in source["versions"].items() if v)
    return "\n".join(
        [
            *lines,
            "",
            "Brackets: 95 % bootstrap intervals, of FID over pictures, else over prompts or timed "
            "rounds; differences are paired. FID is biased at this n: compare rows of this table "
            "alone; with about as many pictures as features its intervals are wider than 95 %. "
            f"{FLOOR.capitalize()}: what drawing the prompts once more changes.",
            f"`{source['command']}`; commit {str(source['commit'])[:12]}, {source['time_utc']}; "
            f"{hardware['device']}, {hardware['cpu']}; {versions}.",
        ]
    )


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
        "--methods", nargs="+", metavar="SPEC",
        help="by default retom, and in a UNet tomesd where it is installed",
    )  # fmt: skip
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
        texts, options.real = rehearsal.data(options.work / "data", options.protocol)
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
        knows = scopes[0] == "attention" and tomesd_installed()
        methods = ["retom", "tomesd"] if knows else ["retom"]
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
    every = list(lineup(options.methods, settings, layout_of(find_denoiser(model.pipe)).scopes))
    if options.rehearse:
        networks = Networks(*rehearsal.networks(), "random networks of a rehearsal")
    else:
        networks = standard_networks(model.device)
    with Store(options.work, source) as store:
        subject = Subject(model, settings, store)
        measuring = Run(subject, options, prompts, networks)
        rows = measuring.rows(every)
        measuring.draw(rows)
        baselines = [baseline_of(row, rows) for row in rows]
        measured: dict[str, Any] = {}
        for row, baseline in zip(rows, baselines, strict=True):
            measured[row.name] = measuring.measure(row, rows[0], baseline)
            progress(f"[measured {row.name}]")
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
            "real": len(measuring.real.features),
            "networks": networks.label,
            "prompt": prompts[0],
            "baseline": next((b.contender.method for b in baselines if b and b.contender), None),
            "rows": measured,
        }
    write_json(options.json, "real_weights", source, results)
    print(block(results, source))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
