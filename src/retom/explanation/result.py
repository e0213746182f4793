"""What :func:`retom.explain` answers: numbers as plain data, and a table of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from retom.noise import EVERY

if TYPE_CHECKING:
    from retom.config import Config
    from retom.grid import Grid

FORMAT = 1
"""Version of the JSON form; it grows by keys alone as long as this stays."""


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOPs of one transformer block for one picture, a multiply-add being two.

    Attributes:
        attention: The products QKᵀ and AV of attention over image tokens (and text tokens, where
            both attend together).
        projections: Linear layers of that attention; of the MLP too where the model fuses them.
        mlp: The MLP, of the text tokens too where a block has one for them.
        text: Attention from image to text, projections and products.
        other: What is left: modulation, adapters.
    """

    attention: int = 0
    projections: int = 0
    mlp: int = 0
    text: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return self.attention + self.projections + self.mlp + self.text + self.other


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One transformer block, at some noise.

    Attributes:
        name: Qualified name in the denoiser.
        level: Attention level, 0 for the largest grid; None where the layout is not known, or the
            block runs un-merged always.
        grid: Height and width in tokens; None like the level.
        noise: (low, high) of the noise levels that the row speaks of; (0, 1) is all of them.
        tokens: Image tokens before merging; None like the level.
        kept: Image tokens after merging, as configured; equal to ``tokens`` where nothing merges.
        merges: Whether it merges, as configured.
        flops: Un-merged.
        flops_kept: As configured.
        flops_merged: If it merged by the configured method; None where it cannot.
        moved_bytes: What planning (its share), merging and un-merging would read and write.
        pays: Whether the FLOPs saved outweigh those bytes; None where it cannot merge.
        pays_in: Scopes in which they would, by the same method.
    """

    name: str
    level: int | None
    grid: Grid | None
    noise: tuple[float, float]
    tokens: int | None
    kept: int | None
    merges: bool
    flops: Flops
    flops_kept: Flops
    flops_merged: Flops | None
    moved_bytes: int | None
    pays: bool | None
    pays_in: tuple[str, ...] = ()

    @property
    def saved(self) -> float:
        """Share of the block's FLOPs that is saved, as configured."""
        return 1 - self.flops_kept.total / self.flops.total if self.flops.total else 0.0


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that merging can gain in one scope: the denoiser's FLOPs, un-merged by merged.

    Attributes:
        scope: Which layers run on fewer tokens.
        levels: ``configured`` for those of the configuration with its rules, ``all`` for every
            level by the configured method.
        flops: FLOPs of the whole denoiser, averaged evenly over noise levels; None where refused.
        speedup: Un-merged over merged FLOPs; None where refused.
        refusal: Why this scope or level cannot merge, in a sentence; empty otherwise.
    """

    scope: str
    levels: str
    flops: float | None
    speedup: float | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What merging can gain on one model at one size; ``str()`` gives a table.

    Attributes:
        name: What was asked about.
        denoiser: Class name.
        source: Where its configuration is from.
        height: Of the picture in pixels; None where inputs were given.
        width: Of the picture in pixels; None where inputs were given.
        text_tokens: Length of the text; None where inputs were given.
        text_tokens_from: Why that length.
        config: The configuration asked about.
        scope: Its scope, resolved for this model.
        flops: FLOPs of one call of the denoiser for one picture, un-merged. Guidance doubles it.
        layers: One entry a transformer block, or one for each stretch of noise where rules tell
            them apart.
        ceilings: For every scope.
        unsupported: Why merging is not supported here, in a sentence; empty where it is.
        balance: FLOPs that the hardware computes while it moves a byte.
        advice: Where merging cannot win, and what would, in sentences.
    """

    name: str
    denoiser: str
    source: str
    height: int | None
    width: int | None
    text_tokens: int | None
    text_tokens_from: str
    config: Config
    scope: str
    flops: int
    layers: tuple[LayerCost, ...]
    ceilings: tuple[Ceiling, ...]
    unsupported: str
    balance: float
    advice: tuple[str, ...] = ()

    def ceiling(self, scope: str, levels: str = "configured") -> Ceiling:
        """The entry of a scope; KeyError where there is none."""
        for entry in self.ceilings:
            if (entry.scope, entry.levels) == (scope, levels):
                return entry
        raise KeyError(f"{scope}, {levels}")

    @property
    def parts(self) -> dict[str, float]:
        """Share of the denoiser's FLOPs in each part; ``elsewhere`` is outside of blocks."""
        first = {layer.name: layer.flops for layer in self.layers}
        sums = {
            part: sum(getattr(flops, part) for flops in first.values())
            for part in Flops.__dataclass_fields__
        }
        sums["elsewhere"] = self.flops - sum(sums.values())
        return {part: flops / self.flops for part, flops in sums.items()}

    def rows(self) -> list[tuple[int, LayerCost]]:
        """Alike layers together: how many, and one of them."""
        grouped: dict[tuple[object, ...], tuple[int, LayerCost]] = {}
        for layer in self.layers:
            key = (layer.level, layer.noise, layer.flops, layer.flops_kept, layer.pays)
            count, first = grouped.get(key, (0, layer))
            grouped[key] = (count + 1, first)
        return sorted(
            grouped.values(), key=lambda row: (-row[1].noise[0], row[1].level or 0, row[1].name)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": FORMAT,
            "name": self.name,
            "denoiser": self.denoiser,
            "source": self.source,
            "height": self.height,
            "width": self.width,
            "text_tokens": self.text_tokens,
            "text_tokens_from": self.text_tokens_from,
            "config": self.config.to_dict(),
            "scope": self.scope,
            "balance": self.balance,
            "flops": self.flops,
            "parts": self.parts,
            "layers": [_layer(layer) for layer in self.layers],
            "ceilings": [asdict(ceiling) for ceiling in self.ceilings],
            "unsupported": self.unsupported,
            "advice": list(self.advice),
        }

    def __str__(self) -> str:
        size = "" if self.height is None else f", {self.height}x{self.width} px"
        lines = [
            f"{self.name}: {self.denoiser}{size}, {readable(self.flops)}FLOPs a call and picture"
        ]
        for count, row in self.rows():
            kept = "" if row.tokens is None else f", {row.tokens} tokens to {row.kept}"
            name = row.name if row.level is None else f"level {row.level}"
            name += "" if row.noise == EVERY else f", noise {row.noise[0]:g} to {row.noise[1]:g}"
            lines.append(
                f"  {count} x {name}{kept}: {readable(row.flops.total)}FLOPs, {row.saved:.0%} saved"
            )
        for entry in self.ceilings:
            gain = entry.refusal if entry.speedup is None else f"{entry.speedup:.2f}x at most"
            lines.append(f"  scope {entry.scope}, {entry.levels} levels: {gain}")
        return "\n".join([*lines, *([self.unsupported] if self.unsupported else []), *self.advice])


def readable(number: float) -> str:
    """A number with three digits and an SI prefix: 1234567 is ``1.23 M``."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if number < 999.5 or prefix == "P":
            return f"{number:.3g} {prefix}"
        number /= 1000
    raise AssertionError


def _layer(layer: LayerCost) -> dict[str, Any]:
    data = asdict(layer)
    for name in ("flops", "flops_kept", "flops_merged"):
        flops = getattr(layer, name)
        if flops is not None:
            data[name]["total"] = flops.total
    return {**data, "saved": layer.saved}


def unknown_layer(name: str, flops: Flops, noise: tuple[float, float] = (0.0, 1.0)) -> LayerCost:
    """A block in which retom cannot merge: its FLOPs, and nothing of its tokens."""
    return LayerCost(
        name=name,
        level=None,
        grid=None,
        noise=noise,
        tokens=None,
        kept=None,
        merges=False,
        flops=flops,
        flops_kept=flops,
        flops_merged=None,
        moved_bytes=None,
        pays=None,
    )
