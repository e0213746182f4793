"""An evaluation from beginning to end: what is missing is measured, then everything is summed up.

Killed at any moment and started again it continues: every piece of work is kept as a whole or not
at all, under a name that says what it depends on (see :mod:`retom.evaluation.store`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retom.drawing.generation import check_size
from retom.drawing.loading import Model, as_model
from retom.errors import ConfigError
from retom.evaluation.contenders import Lineup
from retom.evaluation.floors import FLOORS, screen_floors
from retom.evaluation.pairs import features, paired
from retom.evaluation.picks import pick
from retom.evaluation.provenance import provenance
from retom.evaluation.screening import comparable, screen, screening_key
from retom.evaluation.sets import Reference, real_pictures
from retom.evaluation.store import Store
from retom.evaluation.subject import Subject
from retom.evaluation.summing import About, sum_up
from retom.evaluation.timed_calls import time_calls
from retom.handle import handle_of
from retom.models import find_denoiser, layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retom.evaluation.contenders import Contender
    from retom.evaluation.results import Results
    from retom.evaluation.settings import Sample, Settings
    from retom.metrics import AlignmentHead, Extractor, TextEncoder

    OnProgress = Callable[[str, str, int, int], None]
    """Told of the stage, of what was just done, how much of the stage is done, and of how much."""


@dataclass(frozen=True, slots=True, eq=False)
class Instruments:
    """Networks and pictures beyond the model's own.

    Attributes:
        extractor: Of features; None measures none, and neither KID, Fréchet distance nor alignment.
        real: Folder of real pictures; for None, KID and Fréchet distance are to un-merged pictures
            of another seed.
        head: Of text alignment; None measures none.
        encoder: Of prompts, the one that the head was trained with.
        notes: What the results should say about them, such as why one is missing.

    Raises:
        ConfigError: Something needs an extractor, or a head comes without its encoder.
    """

    extractor: Extractor | None = None
    real: Path | None = None
    head: AlignmentHead | None = None
    encoder: TextEncoder | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.extractor is None and (self.real is not None or self.head is not None):
            raise ConfigError("Real pictures and an alignment head need an extractor of features.")
        if (self.head is None) != (self.encoder is None):
            raise ConfigError("An alignment head comes with its text encoder: give both.")


def _silent(stage: str, what: str, done: int, total: int) -> None:
    """Tell nobody."""


def evaluate(
    target: object,
    settings: Settings,
    folder: Path | str,
    *,
    lineup: Lineup | None = None,
    instruments: Instruments | None = None,
    command: Sequence[str] = ("retom.evaluation.study.evaluate",),
    on_progress: OnProgress = _silent,
) -> Results:
    """Compare methods on a model: denoiser error, time, and pictures of the best few.

    Args:
        target: A diffusers pipeline without merging applied, or a
            :class:`retom.drawing.loading.Model`.
        settings: Prompts, seeds, ratios, scopes and how much to measure.
        folder: Where results grow. What is there is not measured again.
        lineup: Who takes part; a few methods of every kind if not given.
        instruments: Networks and real pictures beyond the model's own; none if not given.
        command: Stands in the results.
        on_progress: Told of every piece of work.

    Raises:
        RetomError: Something that was given does not work; results so far stay in the folder.
    """
    model = target if isinstance(target, Model) else as_model(target)
    if handle_of(model.pipe) is not None:
        raise ConfigError(
            "Merging is applied to this pipeline; call handle.remove() first: an evaluation "
            "applies every contender itself."
        )
    lineup = lineup or Lineup()
    auto = layout_of(find_denoiser(model.pipe)).scopes[0]
    given = lineup.contenders(settings, auto)
    baseline = lineup.baseline_of(given)
    source = provenance(command, model.device)
    with Store(folder, source) as store:
        subject = Subject(model, settings, store)
        check_size(model, subject.height, subject.width)
        study = _Study(subject, given, instruments or Instruments(), on_progress)
        study.real = study.read_real()
        study.find_comparable()
        study.run([*lineup.pictures_of, *([baseline] if baseline else [])])
        about = About(
            model=Path(model.name).name,
            settings=_plain(settings),
            source=source,
            baseline=baseline,
            left_out=study.left_out,
            other_tokens=study.other_tokens,
        )
        return sum_up(subject, study.contenders, study.instruments, study.real, about)


class _Study:
    """One evaluation at work."""

    def __init__(
        self,
        subject: Subject,
        given: list[Contender],
        instruments: Instruments,
        on_progress: OnProgress,
    ) -> None:
        self.subject = subject
        self.settings = subject.settings
        self.store = subject.store
        self.contenders = given
        self.instruments = instruments
        self.on_progress = on_progress
        self.left_out: dict[str, str] = {}
        self.other_tokens: set[str] = set()
        self.real: Reference | None = None
        self.screened = self.settings.screening_chunks()
        self.pair = self.screened[0][:2]

    def read_real(self) -> Reference | None:
        """Features of the real pictures: first of all, because a wrong folder is found out so."""
        folder, extractor = self.instruments.real, self.instruments.extractor
        if folder is None or extractor is None:
            return None
        size = self.subject.height, self.subject.width
        return real_pictures(self.store, folder, extractor, size)

    def find_comparable(self) -> None:
        """Leave out what cannot reach its ratio; refuse what removes other tokens."""
        self.on_progress("tokens", "counting tokens in every layer", 0, 1)
        found = comparable(self.subject, self.contenders, self.pair)
        self.contenders, self.left_out, self.other_tokens = found
        if not self.contenders:
            reasons = " ".join(self.left_out.values())
            raise ConfigError(f"No contender can reach its ratio on this model. {reasons}")
        self.on_progress("tokens", "counted tokens in every layer", 1, 1)

    def run(self, always: Sequence[str]) -> None:
        """Measure what is missing of every stage that is asked for."""
        stages = self.settings.stages
        if "screening" in stages:
            total = len(self.screened) * (len(self.contenders) + len(FLOORS))
            self._tell("screening", total, self._screen())
        if "timing" in stages:
            self._tell("timing", len(self.contenders), self._time())
        if "pictures" in stages:
            picked = pick(self.contenders, self._errors(), self.settings.best, always)
            chunks = len(self.settings.chunks())
            self._tell("pictures", chunks * (len(picked) + 2), self._pictures(picked))

    def _tell(self, stage: str, total: int, work: Iterator[str]) -> None:
        self.on_progress(stage, "starting", 0, total)
        for done, what in enumerate(work, start=1):
            self.on_progress(stage, what, done, total)

    def _screen(self) -> Iterator[str]:
        others = self.settings.screening_chunks(other=True)
        for samples, again in zip(self.screened, others, strict=True):
            yield from screen_floors(self.subject, samples, again)
            todo = [
                contender
                for contender in self.contenders
                if not self.store.has_record(screening_key(self.subject, samples, contender))
            ]
            for _ in range(len(self.contenders) - len(todo)):
                yield "done before"
            for contender in screen(self.subject, samples, todo):
                yield contender.name

    def _time(self) -> Iterator[str]:
        hardware = self.store.source["hardware"]
        for contender in self.contenders:
            time_calls(self.subject, self.pair, contender, hardware)
            yield contender.name

    def _pictures(self, picked: Sequence[Contender]) -> Iterator[str]:
        others = self.settings.chunks(other=True)
        for samples, again in zip(self.settings.chunks(), others, strict=True):
            reference = self._drawn(samples, None)
            yield "un-merged"
            floor = self._drawn(again, None)
            paired(self.store, floor, reference, None)
            yield "un-merged, another seed"
            for contender in picked:
                key = self._drawn(samples, contender)
                paired(self.store, key, reference, self.subject.period_of(contender))
                yield contender.name

    def _drawn(self, samples: Sequence[Sample], contender: Contender | None) -> str:
        key = self.subject.drawn(samples, contender)
        if self.instruments.extractor is not None:
            features(self.store, key, self.instruments.extractor)
        return key

    def _errors(self) -> dict[str, list[float]]:
        """Mean error at each noise level of every contender that is screened as a whole."""
        found: dict[str, list[float]] = {}
        for contender in self.contenders:
            keys = [screening_key(self.subject, s, contender) for s in self.screened]
            if all(self.store.has_record(key) for key in keys):
                rows = [row for k in keys for row in self.store.record(k)["values"]["errors"]]
                found[contender.name] = [
                    sum(level) / len(rows) for level in zip(*rows, strict=True)
                ]
        return found


def _plain(settings: Settings) -> dict[str, Any]:
    data: dict[str, Any] = asdict(settings)
    return data | {"levels": settings.levels if settings.levels == "all" else list(settings.levels)}
