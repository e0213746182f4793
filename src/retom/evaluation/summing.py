"""From the pieces in the store to rows with estimates."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from retom.evaluation.against import Against, another_seed
from retom.evaluation.floors import floor_key
from retom.evaluation.measures import MEASURES, SPEED
from retom.evaluation.pairs import features, paired
from retom.evaluation.results import (
    FLOOR,
    ONE_BY_ONE,
    UNMERGED,
    Results,
    Row,
    SampleValue,
    difference,
    over_prompts,
)
from retom.evaluation.screening import screening_key
from retom.evaluation.sets import Reference, alignments
from retom.evaluation.store import key_of
from retom.evaluation.timed_calls import timing_content
from retom.evaluation.timing import ratio_estimate
from retom.metrics import Features, feature_cosine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.evaluation.contenders import Contender
    from retom.evaluation.settings import Sample
    from retom.evaluation.study import Instruments
    from retom.evaluation.subject import Subject
    from retom.metrics import Estimate

TITLES = {measure.key: measure.title for measure in MEASURES}


@dataclass(slots=True)
class _Pictures:
    """The pictures of one row, over all samples."""

    keys: list[str]
    features: Features | None = None
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What stands in results beside the numbers; see :class:`retom.evaluation.results.Results`."""

    model: str
    settings: dict[str, Any]
    source: dict[str, Any]
    baseline: str | None
    left_out: dict[str, str]
    other_tokens: set[str]


def sum_up(
    subject: Subject,
    contenders: Sequence[Contender],
    instruments: Instruments,
    real: Reference | None,
    about: About,
) -> Results:
    """Read everything that is in the store for these contenders, and estimate.

    Contenders of which pieces are missing, because a stage was not asked for, have fewer numbers.
    """
    summing = _Summing(subject, instruments, real)
    rows = [
        Row(c.name, c.method, c.family, c.ratio, c.scope, c.content(), c.name in about.other_tokens)
        for c in contenders
    ]
    for row, contender in zip(rows, contenders, strict=True):
        summing.denoiser(row, contender)
        summing.pictures(row, contender)
    unmerged = summing.references()
    summing.compare(rows, about.baseline)
    summing.compare_to_unmerged([*rows, *unmerged])
    return Results(
        rows=[*rows, *unmerged],
        model=about.model,
        content=subject.content,
        settings=about.settings,
        samples=summing.samples,
        timesteps=subject.timesteps,
        baseline=about.baseline,
        left_out=about.left_out,
        notes=summing.notes(about.other_tokens),
        floors=summing.against.floors(len(summing.samples)),
        sample_values=summing.sample_values,
        sources=[*summing.other_sources(about.source), about.source],
        extractor=None if instruments.extractor is None else instruments.extractor.name,
        reference=summing.against.name,
    )


class _Summing:
    """Reads the store for one evaluation."""

    def __init__(self, subject: Subject, instruments: Instruments, real: Reference | None) -> None:
        self.subject, self.store = subject, subject.store
        self.instruments = instruments
        self.chunks = subject.settings.chunks()
        self.others = subject.settings.chunks(other=True)
        self.first = subject.settings.screening_chunks()
        self.again = subject.settings.screening_chunks(other=True)
        self.samples = [sample for chunk in self.chunks for sample in chunk]
        self.screened = [sample for chunk in self.first for sample in chunk]
        self.sample_values: list[SampleValue] = []
        self.errors: dict[str, list[float]] = {}
        self.drawn: dict[str, _Pictures] = {}
        self.commits: dict[str, dict[str, Any]] = {}
        self.against = Against(self.store, real or self._another_seed())

    def denoiser(self, row: Row, contender: Contender) -> None:
        """Denoiser error and speed of a row."""
        self._errors(
            row, [screening_key(self.subject, samples, contender) for samples in self.first]
        )
        hardware = self.store.source["hardware"]
        content = timing_content(self.subject, self.first[0][:2], contender, hardware)
        key = key_of("timing", content)
        if self.store.has_record(key):
            seconds = self._values(key)
            row.values["speedup"] = ratio_estimate(
                seconds["unmerged_s"], seconds["merged_s"], SPEED.title
            )

    def _errors(self, row: Row, keys: Sequence[str]) -> None:
        """Denoiser errors of a row, where all are measured."""
        if not all(self.store.has_record(key) for key in keys):
            return
        errors: list[list[float]] = [e for k in keys for e in self._values(k)["errors"]]
        row.by_level = [fmean(level) for level in zip(*errors, strict=True)]
        self.errors[row.name] = [fmean(levels) for levels in errors]
        row.values["error"] = over_prompts(self.errors[row.name], self.screened, TITLES["error"])
        for sample, levels in zip(self.screened, errors, strict=True):
            for timestep, value in zip(self.subject.timesteps, levels, strict=True):
                self._keep(row.name, "error", sample, value, timestep)

    def pictures(self, row: Row, contender: Contender | None, *, other: bool = False) -> None:
        """Measures of the pictures of a row, where all are drawn."""
        chunks = self.others if other else self.chunks
        keys = [self.subject.pictures_key(samples, contender) for samples in chunks]
        references = [self.subject.pictures_key(samples, None) for samples in self.chunks]
        if not all(self.store.has_pictures(key) for key in (*keys, *references)):
            return
        row.pictures = [str(path) for key in keys for path in self.store.picture_paths(key)]
        own = self.drawn[row.name] = _Pictures(keys)
        if keys != references:
            period = self.subject.period_of(contender) if contender else None
            for key, reference in zip(keys, references, strict=True):
                for measure, values in paired(self.store, key, reference, period).items():
                    own.values.setdefault(measure, []).extend(values)
                self._commit(key_of("pairs", {"pictures": key, "reference": reference,
                                              "period": period and list(period)}))  # fmt: skip
        self._features(own, references)
        if own.features is not None and (self.against.is_real or not other):
            row.values |= self.against.values((own.keys, own.features))
        for measure, values in own.values.items():
            row.values[measure] = over_prompts(values, self.samples, TITLES[measure])
            for sample, value in zip(self.samples, values, strict=True):
                self._keep(row.name, measure, sample, value, None)

    def references(self) -> list[Row]:
        """The un-merged pictures themselves, those of another seed, and what rounding makes."""
        rows = [Row(name, name, UNMERGED) for name in (UNMERGED, FLOOR, ONE_BY_ONE)]
        self.pictures(rows[0], None)
        self.pictures(rows[1], None, other=True)
        pairs = list(zip(self.first, self.again, strict=True))
        for row in rows[1:]:
            self._errors(row, [floor_key(self.subject, row.name, *pair) for pair in pairs])
        return [row for row in rows if row.pictures or row.values]

    def compare(self, rows: Sequence[Row], baseline: str | None) -> None:
        """Differences of rows to the baseline of their ratio and scope."""
        for row in rows:
            groups = [r for r in rows if (r.ratio, r.scope) == (row.ratio, row.scope)]
            base = next((r for r in groups if r.method == baseline), None)
            if base is None or base is row:
                continue
            if row.name in self.errors and base.name in self.errors:
                row.differences["error"] = difference(
                    self.errors[row.name], self.errors[base.name], self.screened, TITLES["error"]
                )
            own, others = self.drawn.get(row.name), self.drawn.get(base.name)
            if own is None or others is None:
                continue
            for measure in own.values.keys() & others.values.keys():
                row.differences[measure] = difference(
                    own.values[measure], others.values[measure], self.samples, TITLES[measure]
                )
            row.differences |= self._set_differences(own, others)

    def compare_to_unmerged(self, rows: Sequence[Row]) -> None:
        """Differences of rows to the un-merged pictures, in what has no un-merged twin."""
        whole = self.drawn.get(UNMERGED)
        for row in rows:
            own = self.drawn.get(row.name)
            if whole is None or own is None or own is whole:
                continue
            if "alignment" in own.values:
                row.from_unmerged["alignment"] = difference(
                    own.values["alignment"], whole.values["alignment"], self.samples,
                    TITLES["alignment"],
                )  # fmt: skip
            if self.against.is_real:
                row.from_unmerged |= self._set_differences(own, whole)

    def notes(self, other_tokens: set[str]) -> list[str]:
        """What a reader has to know."""
        prompts = len(self.subject.settings.prompts)
        notes: list[str] = []
        if prompts < 32:
            notes.append(
                f"{prompts} prompts are few: intervals are wide, and the best row of many is a "
                "candidate, not a finding."
            )
        notes += [*self.against.notes(len(self.samples)), *self.instruments.notes]
        if other_tokens:
            notes.append("† computes on other numbers of tokens than the others of its ratio.")
        commits = sorted({str(c["commit"])[:12] for c in self.commits.values()})
        if len(commits) > 1:
            notes.append(f"Results of several commits stand together: {', '.join(commits)}.")
        return notes

    def other_sources(self, source: dict[str, Any]) -> list[dict[str, Any]]:
        """Provenance of earlier processes whose numbers stand here, the earliest first."""
        found = [one for one in self.commits.values() if one["time_utc"] != source["time_utc"]]
        return sorted(found, key=lambda one: one["time_utc"])

    def _features(self, own: _Pictures, references: list[str]) -> None:
        extractor = self.instruments.extractor
        if extractor is None:
            return
        own.features = self._all_features(own.keys)
        if own.keys != references:
            cosine = feature_cosine(own.features, self._all_features(references))
            own.values["cosine"] = cosine.tolist()
        head, encoder = self.instruments.head, self.instruments.encoder
        if head is not None and encoder is not None:
            prompts = [sample.prompt for sample in self.samples]
            own.values["alignment"] = alignments(head, encoder, own.features, prompts)

    def _all_features(self, keys: Sequence[str]) -> Features:
        extractor = self.instruments.extractor
        assert extractor is not None
        values = torch.cat([features(self.store, key, extractor) for key in keys])
        return Features(values, extractor.name)

    def _another_seed(self) -> Reference | None:
        """Un-merged pictures of another seed, where they are drawn and have features."""
        keys = [self.subject.pictures_key(samples, None) for samples in self.others]
        drawn = all(self.store.has_pictures(key) for key in keys)
        if self.instruments.extractor is None or not drawn:
            return None
        return another_seed(keys, self._all_features(keys))

    def _set_differences(self, own: _Pictures, other: _Pictures) -> dict[str, Estimate]:
        if own.features is None or other.features is None:
            return {}
        return self.against.differences((own.keys, own.features), (other.keys, other.features))

    def _values(self, key: str) -> dict[str, Any]:
        self._commit(key)
        return self.store.record(key)["values"]

    def _commit(self, key: str) -> None:
        source = self.store.record(key)["source"]
        if source:
            self.commits[source["time_utc"]] = source

    def _keep(
        self, name: str, measure: str, sample: Sample, value: float, timestep: int | None
    ) -> None:
        self.sample_values.append(
            SampleValue(name, measure, sample.prompt, sample.seed, timestep, value)
        )
