"""Tables of model_quality: sorted, with intervals over prompts and paired differences to tomesd."""

from __future__ import annotations

from typing import Any

import numpy as np
from measure import interval, ratio_of_pairs
from record import between, table
from store import Record, Store
from variants import TOMESD, UNMERGED

FLOOR = f"{UNMERGED}, another seed"

TEACHER_NOTE = (
    "Relative L2 error of the denoiser's output, ||merged − un-merged||₂ / ||un-merged||₂ of each "
    "sample on identical inputs, without guidance; mean over prompts and the noise levels below. "
    "The inputs are the un-merged model's own final latents, noised to that timestep. Lower is "
    "better."
)
PICTURES_NOTE = (
    "PSNR (dB, at most 100) and SSIM to the un-merged picture of the same prompt, seed and steps; "
    "mean over prompts. Higher is better."
)
COMMON_NOTE = (
    f"Brackets: 95 % bootstrap intervals over prompts. Difference: to {TOMESD} on the same "
    "prompts, paired. n: prompts. Time: one denoiser call of batch 2, merged / un-merged, median "
    "of the ratios of interleaved pairs."
)


def report(store: Store) -> tuple[str, dict[str, Any]]:
    """Everything in the store as Markdown and as plain data."""
    times = {
        variant: ratio_of_pairs(records[-1]["merged_s"], records[-1]["un_merged_s"])
        for variant, records in store.of("timing").items()
    }
    results: dict[str, Any] = {
        "settings": store.settings,
        "sessions": store.sessions,
        "timing": times,
        "teacher": {},
        "pictures": {},
    }
    parts = [f"### Settings\n\n{_settings(store)}"]
    teacher = {v: _by_prompt(r, "errors") for v, r in store.of("teacher").items()}
    if teacher:
        results["teacher"] = {v: _teacher(rows, teacher.get(TOMESD)) for v, rows in teacher.items()}
        parts.append(_teacher_table(results["teacher"], times, store))
    pictures = store.of("pictures")
    if pictures:
        for measure in ("psnr", "ssim"):
            values = {v: _by_prompt(records, measure) for v, records in pictures.items()}
            for variant, rows in values.items():
                row = results["pictures"].setdefault(variant, {"n": len(rows)})
                row |= _compared(measure, rows, values.get(TOMESD))
        parts.append(_pictures_table(results["pictures"], times))
    return "\n\n".join(parts), results


def _by_prompt(records: list[Record], key: str) -> dict[int, Any]:
    """Values of a variant by prompt."""
    return {
        prompt: value
        for record in records
        for prompt, value in zip(record["prompts"], record[key], strict=True)
    }


def _compared(name: str, rows: dict[int, Any], reference: dict[int, Any] | None) -> dict[str, Any]:
    """Mean with its interval, and the paired difference where both have the same prompts."""
    found = {name: interval([np.mean(value) for value in rows.values()])}
    common = sorted(rows.keys() & (reference or {}).keys())
    if reference and common and rows is not reference:
        pairs = [np.mean(rows[prompt]) - np.mean(reference[prompt]) for prompt in common]
        found[f"{name} minus tomesd"] = interval(pairs)
    return found


def _teacher(rows: dict[int, Any], reference: dict[int, Any] | None) -> dict[str, Any]:
    by_level = np.mean(list(rows.values()), axis=0)
    return {
        "n": len(rows),
        **_compared("error", rows, reference),
        "error by level": [float(f"{value:.6g}") for value in by_level],
    }


def _teacher_table(found: dict[str, Any], times: dict[str, Any], store: Store) -> str:
    timesteps = store.of("teacher")
    levels = next(iter(timesteps.values()))[0]["timesteps"]
    header = ["variant", "n", "error", "minus tomesd", *(f"t={t}" for t in levels), "time"]
    rows = [
        [
            variant,
            row["n"],
            between(row["error"], 4),
            _difference(row, "error", 4),
            *(f"{value:.4f}" for value in row["error by level"]),
            _time(times, variant),
        ]
        for variant, row in sorted(found.items(), key=lambda item: item[1]["error"]["value"])
    ]
    note = f"{TEACHER_NOTE} {COMMON_NOTE}"
    return f"### Denoiser error\n\n{note}\n\n{table(header, rows)}"


def _pictures_table(found: dict[str, Any], times: dict[str, Any]) -> str:
    header = ["variant", "n", "PSNR", "minus tomesd", "SSIM", "minus tomesd", "time"]
    rows = [
        [
            variant,
            row["n"],
            between(row["psnr"]),
            _difference(row, "psnr", 2),
            between(row["ssim"], 4),
            _difference(row, "ssim", 4),
            _time(times, variant),
        ]
        for variant, row in sorted(found.items(), key=lambda item: -item[1]["psnr"]["value"])
    ]
    note = f"{PICTURES_NOTE} {COMMON_NOTE}"
    return f"### Pictures\n\n{note}\n\n{table(header, rows)}"


def _settings(store: Store) -> str:
    lines = [f"- {name}: {value}" for name, value in store.settings.items() if value is not None]
    commits = sorted({str(session["commit"])[:12] for session in store.sessions})
    lines.append(f"- measured at commit: {', '.join(commits)}")
    if len(commits) > 1:
        lines.append("- **results of several commits stand in one table**")
    return "\n".join(lines)


def _difference(row: dict[str, Any], name: str, digits: int) -> str:
    found = row.get(f"{name} minus tomesd")
    return between(found, digits) if found else ""


def _time(times: dict[str, Any], variant: str) -> str:
    return f"{times[variant]['value']:.2f}" if variant in times else ""
