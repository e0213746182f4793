"""Does merging happen at all? tomesd and ReToM at their defaults, shaped like SDXL and SD 1.5.

The UNets have the published stages, blocks and levels at a fraction of the width, and random
weights; what merges where depends on the structure alone. Spies count how often tomesd's matching
really matched (r > 0), how many plans ReToM made, and on how many tokens each self-attention layer
computed, queries and keys averaged. Counts, not timings: one call of the denoiser.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import tomesd
from record import caption, parser, progress, provenance, table, write_json
from sources import CONFIGS, call, random_unet, unet_inputs
from torch import nn

import retom
from retom.evaluation.tokens import tokens_in_layers
from retom.methods.local import LocalMethod

Apply = Callable[[nn.Module], Callable[[], object]]


def _tomesd(**options: Any) -> Apply:  # noqa: ANN401
    def apply(unet: nn.Module) -> Callable[[], object]:
        tomesd.apply_patch(unet, **options)
        return lambda: tomesd.remove_patch(unet)

    return apply


CASES: dict[str, Apply] = {
    "un-merged": lambda unet: lambda: None,
    "tomesd, defaults": _tomesd(),
    "tomesd, max_downsample=2": _tomesd(max_downsample=2),
    "retom, defaults": lambda unet: retom.apply(unet).remove,
    'retom, levels="all"': lambda unet: retom.apply(unet, levels="all").remove,
}
MODELS = {"sdxl-narrow": (128, 128), "sd15-narrow": (64, 64)}
SMOKE = {"sdxl-narrow": (16, 16), "sd15-narrow": (16, 16)}


@contextlib.contextmanager
def spies() -> Iterator[Counter[str]]:
    """Count real matchings of tomesd and plans of retom inside the block."""
    counts: Counter[str] = Counter()
    match, plan = tomesd.merge.bipartite_soft_matching_random2d, LocalMethod.plan

    def match_counted(metric: Any, w: int, h: int, sx: int, sy: int, r: int, **rest: Any) -> Any:  # noqa: ANN401
        counts["matchings"] += r > 0
        return match(metric, w, h, sx, sy, r, **rest)

    def plan_counted(self: LocalMethod, *given: Any) -> retom.Plan:  # noqa: ANN401
        counts["plans"] += 1
        return plan(self, *given)

    with (
        mock.patch.object(tomesd.merge, "bipartite_soft_matching_random2d", match_counted),
        mock.patch.object(LocalMethod, "plan", plan_counted),
    ):
        yield counts


def count(unet: nn.Module, apply: Apply, given: dict[str, Any]) -> dict[str, Any]:
    """One call of ``unet`` with merging applied: matchings, plans, tokens of every layer."""
    remove = apply(unet)
    try:
        with spies() as counts:
            tokens = tokens_in_self_attention(unet, lambda: call(unet, given))
    finally:
        remove()
    return {"matchings": counts["matchings"], "plans": counts["plans"], "tokens": tokens}


def tokens_in_self_attention(unet: nn.Module, call: Callable[[], object]) -> dict[str, int]:
    """Tokens that each self-attention layer really computes on, queries and keys averaged."""
    tokens = tokens_in_layers(unet, call)
    return {
        name.removesuffix(".to_q"): (counts[-1] + tokens[name[:-1] + "k"][-1]) // 2
        for name, counts in tokens.items()
        if name.endswith("attn1.to_q")
    }


def summarise(found: dict[str, Any], whole: dict[str, int]) -> dict[str, Any]:
    """From tokens by layer to counts of layers, where fewer tokens than un-merged is merged."""
    tokens: dict[str, int] = found.pop("tokens")
    steps = Counter((whole[name], tokens[name]) for name in whole)
    merged = sum(n for (before, after), n in steps.items() if after < before)
    found |= {
        "layers": len(whole),
        "layers merged": merged,
        "tokens before": sum(whole.values()),
        "tokens after": sum(tokens.values()),
        "by grid": [
            {"tokens before": before, "tokens after": after, "layers": n}
            for (before, after), n in sorted(steps.items(), reverse=True)
        ],
    }
    return found


def row(name: str, found: dict[str, Any]) -> list[object]:
    """One table row."""
    grids = ", ".join(
        f"{g['layers']} x {g['tokens before']} → {g['tokens after']}"
        for g in found["by grid"]
        if g["tokens after"] < g["tokens before"]
    )
    calls = f"{found['matchings']} / {found['plans']}"
    layers = f"{found['layers merged']} of {found['layers']}"
    return [name, calls, layers, found["tokens before"], found["tokens after"], grids or "nothing"]


def main(argv: Sequence[str]) -> int:
    """Count on both structures."""
    options = parser(__doc__).parse_args(argv)
    source = provenance(options, argv, "sdxl_coverage")
    header = [
        "",
        "matchings / plans",
        "layers merged",
        "tokens before",
        "tokens after",
        "layers x tokens",
    ]
    results: dict[str, Any] = {}
    for name, (height, width) in (SMOKE if options.smoke else MODELS).items():
        unet = random_unet(name, device=options.device, seed=options.seed)
        given = unet_inputs(unet, batch=2, height=height, width=width, seed=options.seed)
        found: dict[str, Any] = {}
        whole: dict[str, int] = {}
        for case, apply in CASES.items():
            progress(f"{name}: {case}")
            one = count(unet, apply, given)
            whole = whole or dict(one["tokens"])
            found[case] = summarise(one, whole)
        results[name] = {"height": height, "width": width, "cases": found}
        widths = CONFIGS[name]["block_out_channels"]
        print(f"\n### {name} (channels {widths}), latents {height}x{width}, batch 2\n")
        print(table(header, (row(case, one) for case, one in found.items())))
    silent = results["sdxl-narrow"]["cases"]["tomesd, defaults"]["layers merged"] == 0
    print(f"\ntomesd at its defaults merges {'nothing' if silent else 'something'} on SDXL.")
    print("\n" + caption(source))
    write_json(options.json, "sdxl_coverage", source, {"results": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
