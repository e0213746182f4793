"""``retom eval``: compare methods, ratios and scopes on a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from retom.cli import arguments
from retom.cli.running import require, threads
from retom.cli.sweeps import add_folder, add_sweep
from retom.config import Config
from retom.drawing.bundled import BUNDLED, DEFAULT, bundled_folder, bundled_head
from retom.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from retom.drawing.loading import Model
    from retom.evaluation.results import Results
    from retom.evaluation.settings import Settings
    from retom.evaluation.study import Instruments

_EXTRA = ("rich", "numpy", "PIL", "transformers", "diffusers", "safetensors", "pyarrow")
_STAGES = ("screening", "timing", "pictures")
HEAD = "alignment_head.safetensors"
"""A model's own alignment head, beside its parts; texts are read by MiniLM."""


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom eval`` its arguments."""
    parser.set_defaults(run=run)
    _add_contenders(parser.add_argument_group("contenders"))
    _add_samples(parser.add_argument_group("pictures"))
    _add_instruments(parser.add_argument_group("instruments"))
    arguments.add_model(parser.add_argument_group("model"))
    output = parser.add_argument_group("output")
    add_folder(output, "retom-eval", "where results grow and the report is written")


def run(options: argparse.Namespace) -> None:
    """Measure what is missing, write the report, print the tables.

    Raises:
        RetomError: Something that the user gave does not work; what was measured stays.
    """
    configs = _configs(options.config or [])
    require("eval", _EXTRA, "cli,eval")

    from retom.cli import eval_report
    from retom.cli.progress import WorkBar
    from retom.drawing.loading import load_model, quiet_libraries
    from retom.evaluation.contenders import Lineup
    from retom.evaluation.study import evaluate

    with quiet_libraries(), threads(options.threads):
        with WorkBar(hidden=options.quiet) as bar:
            bar.wait("loading the model")
            model = load_model(options.model, device=options.device, dtype=options.dtype)
            results = evaluate(
                model,
                _settings(options, model),
                options.output,
                lineup=Lineup(
                    methods=options.methods,
                    configs=configs,
                    baseline=options.baseline,
                    pictures_of=options.pictures_of,
                ),
                instruments=_instruments(options, model),
                command=options.command,
                on_progress=bar.step,
            )
            bar.wait("writing the report")
            files = _write(results, options.output)
        if options.json:
            eval_report.print_json(results)
        elif not options.quiet:
            eval_report.print_results(results, files)


def _write(results: Results, folder: Path) -> list[Path]:
    """Parquet, Markdown and the report; the report last, so that it is there if all of it is."""
    from retom.evaluation.parquet import write_parquet
    from retom.evaluation.report import write_report
    from retom.evaluation.store import write_whole
    from retom.evaluation.tables import markdown

    parquet = write_parquet(results, folder)
    write_whole(folder / "tables.md", markdown(results).encode())
    return [write_report(results, folder / "report.html"), folder / "tables.md", *parquet]


def _settings(options: argparse.Namespace, model: Model) -> Settings:
    from retom.evaluation.prompts import first_prompts, prompts_of
    from retom.evaluation.settings import Settings

    prompts = prompts_of(folder_of(options.model), options.prompts_file)
    height, width = options.size or (None, None)
    return Settings(
        prompts=first_prompts(prompts, options.prompts),
        seeds=options.seeds,
        ratios=options.ratios,
        scopes=options.scopes,
        levels=options.levels,
        steps=options.steps,
        guidance=options.guidance,
        height=height,
        width=width,
        noise_levels=options.noise_levels,
        screened=options.screened,
        batch=options.batch,
        best=options.best,
        rounds=options.rounds,
        stages=[stage for stage in _STAGES if stage in options.only],
    )


def _instruments(options: argparse.Namespace, model: Model) -> Instruments:
    """Networks that the options ask for, loaded."""
    from retom.evaluation.study import Instruments
    from retom.metrics import EfficientNetLite0, SentenceEncoder, load_head, minilm

    if options.no_features:
        if options.real or options.head:
            raise ConfigError("--real and --head need features; leave --no-features out.")
        return Instruments()
    if options.real is not None and not options.real.is_dir():
        raise ConfigError(f"There is no folder {options.real} of real pictures.")
    extractor = EfficientNetLite0(model.device)
    if options.head is not None:
        head = load_head(options.head)
        encoder = SentenceEncoder(options.texts) if options.texts else minilm()
        return Instruments(extractor=extractor, real=options.real, head=head, encoder=encoder)
    if options.texts is not None:
        raise ConfigError("--texts is the encoder of an alignment head; give --head as well.")
    own = own_head(options.model)
    if own is None:
        return Instruments(extractor=extractor, real=options.real)
    try:
        encoder = minilm()
    except MissingExtraError as error:
        note = f"The model brings an alignment head, but alignment was left out. {error}"
        return Instruments(extractor=extractor, real=options.real, notes=(note,))
    return Instruments(extractor=extractor, real=options.real, head=load_head(own), encoder=encoder)


def own_head(model: str | None) -> Path | None:
    """The alignment head that a model brings; None where it brings none."""
    name = model or DEFAULT
    head = bundled_head() if name in BUNDLED else Path(name) / HEAD
    return head if head.is_file() else None


def _configs(paths: list[Path]) -> dict[str, Config]:
    """Configurations by the names of their files.

    Raises:
        ConfigError: Two files have one name, or one is no configuration.
    """
    found: dict[str, Config] = {}
    for path in paths:
        if path.stem in found:
            raise ConfigError(f"Two configurations are named {path.stem}; rename one file.")
        found[path.stem] = Config.load(path)
    return found


def folder_of(model: str | None) -> Path | None:
    """Where the model lies; None for a model from a hub."""
    name = model or DEFAULT
    if name in BUNDLED:
        return bundled_folder(name)
    return Path(name) if Path(name).is_dir() else None


def _add_contenders(group: argparse._ArgumentGroup) -> None:
    """What is compared."""
    group.add_argument(
        "--methods", nargs="+", metavar="SPEC",
        help="such as retom retom:reach=1,window=4x4 retom:allocation=uniform/coherence tomesd; "
        "a few of every kind if not given",
    )  # fmt: skip
    group.add_argument(
        "--config", nargs="+", type=Path, metavar="FILE",
        help="configurations, compared as they are beside the methods",
    )  # fmt: skip
    add_sweep(group)
    group.add_argument(
        "--baseline", metavar="SPEC", help="what differences are to; tomesd, else tome"
    )


def _add_samples(group: argparse._ArgumentGroup) -> None:
    """What is drawn, and how much is measured."""
    number = arguments.whole_number
    group.add_argument("--prompts", type=number(2), default=16, metavar="N", help="default 16")
    group.add_argument(
        "--prompts-file", type=Path, metavar="FILE",
        help="one a line; the model's own, or some that come along, if not given",
    )  # fmt: skip
    group.add_argument(
        "--seeds", nargs="+", type=number(0, 2**31), default=[0], metavar="N",
        help="each draws every prompt once; default 0",
    )  # fmt: skip
    arguments.add_sampling(group)
    group.add_argument(
        "--noise-levels", type=number(1), default=8, metavar="N",
        help="of the screening, default 8",
    )  # fmt: skip
    group.add_argument(
        "--screened", type=number(2), metavar="N",
        help="prompts of the screening, the first ones; all if not given",
    )  # fmt: skip
    group.add_argument(
        "--batch", type=number(2), default=8, metavar="N", help="prompts at once, even, default 8"
    )
    group.add_argument(
        "--best", type=number(0), default=4, metavar="N",
        help="contenders of each ratio and scope that get pictures beside the baseline, default 4",
    )  # fmt: skip
    group.add_argument(
        "--pictures-of", nargs="+", default=[], metavar="PATTERN",
        help="methods that get pictures whatever the screening says, such as 'retom*'",
    )  # fmt: skip
    group.add_argument(
        "--rounds", type=number(2), default=9, metavar="N", help="timed pairs, default 9"
    )
    group.add_argument(
        "--only", nargs="+", choices=(*_STAGES, "report"), default=list(_STAGES),
        help="what to measure; report measures nothing and sums up what is there",
    )  # fmt: skip


def _add_instruments(group: argparse._ArgumentGroup) -> None:
    """Networks and pictures beside the model's own."""
    group.add_argument(
        "--real", type=Path, metavar="DIR", help="real pictures: KID and Fréchet distance to them"
    )
    group.add_argument(
        "--head",
        type=Path,
        metavar="FILE",
        help="a text-alignment head of retom.metrics; the model's own, if it brings one",
    )
    group.add_argument(
        "--texts", type=Path, metavar="DIR",
        help="the text encoder that the head was trained with; MiniLM if not given",
    )  # fmt: skip
    group.add_argument("--no-features", action="store_true", help="do without a feature network")
