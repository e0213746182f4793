"""Train the UNet, from small pictures to large ones.

A 16 x 16 grid is trained forty times faster than a 64 x 64 one, and what the model learns there
about concepts and colours carries over; the later phases add size.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from . import noise, render, sentences, text
from .ema import Ema
from .grow import outermost
from .loop import Loop, move, set_rate
from .network import build, fitted, grown
from .optimizers import MatrixOptimizer, Together
from .pool import Encoders, Pool
from .precision import mixed
from .preset import Phase, Preset
from .stream import Stream

RENEWED = 16
"""Every so many steps, so many composites of the pool are replaced by new ones."""
MOST_SHARES = 16
ANCHORED = 256
"""Texts a step on which the text encoder goes on imitating its teacher."""


def load_encoders(
    work: Path, init: Path | None, device: torch.device, *, tuned: bool = True
) -> Encoders:
    """Load the trained autoencoder and text encoder, frozen.

    Args:
        work: The work folder.
        init: An exported model to take them from instead.
        device: Where they run.
        tuned: Take the text encoder the denoiser was last trained with in this work folder, if it
            was; without it, the one training starts from.
    """
    root = init or work
    vae = AutoencoderTiny.from_pretrained(root / ("vae" if init else "autoencoder"))
    joint = work / "text_encoder-joint"
    source = joint if tuned and joint.exists() else root / "text_encoder"
    encoder = CLIPTextModel.from_pretrained(source, dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer")
    for module in (vae, encoder):
        move(module, device)
        module.eval().requires_grad_(requires_grad=False)
    return Encoders(vae, encoder, tokenizer)


def pipeline(encoders: Encoders, trained: Path) -> StableDiffusionPipeline:
    """Assemble the stock pipeline around the trained parts.

    Args:
        encoders: Two of its parts.
        trained: Folder with the UNet and the scheduler it was trained with.
    """
    parts: dict[str, Any] = {
        "vae": encoders.autoencoder,
        "text_encoder": encoders.text,
        "tokenizer": encoders.tokenizer,
        "unet": UNet2DConditionModel.from_pretrained(trained / "unet"),
        "scheduler": DDIMScheduler.from_pretrained(trained / "scheduler"),
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def timesteps(count: int, device: torch.device, *, noisy: float = 0.6) -> Tensor:
    """Draw one timestep a picture, spread over the whole schedule.

    Stratified draws lower the variance of the loss. A power below 1 favours noisy timesteps, where
    what the picture shows is decided; removing the last noise is learned soon and by every picture.
    A level that has just been added has yet to learn that, and knows the rest from inside.

    Args:
        count: How many.
        device: Where.
        noisy: The power of even draws from 0 to 1.
    """
    even = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    return (even**noisy * noise.STEPS).long().clamp_(0, noise.STEPS - 1)


@dataclass(frozen=True)
class Batch:
    """One step's share of one worker, with everything random already drawn."""

    latents: Tensor
    ids: Tensor
    noise: Tensor
    steps: Tensor

    def split(self, parts: int) -> list[Batch]:
        """Cut the batch into so many shares, equal if its size is a multiple of them."""
        fields = (self.latents, self.ids, self.noise, self.steps)
        return [Batch(*share) for share in zip(*(f.chunk(parts) for f in fields), strict=True)]


def loss_of(unet: UNet2DConditionModel, encoders: Encoders, alphas: Tensor, batch: Batch) -> Tensor:
    """Return the plain v-prediction loss.

    Min-SNR weights vanish at zero terminal SNR, just where this model must learn to choose the
    picture's colours, so every timestep weighs the same in v.
    """
    noisy, target = noise.noisy_and_velocity(batch.latents, batch.noise, batch.steps, alphas)
    with mixed(noisy.device):
        states = encoders.states(batch.ids)
        guess = unet(noisy, batch.steps, states, return_dict=False)[0]
    return (guess.float() - target).square().mean()


class Executor:
    """Worker threads that use one core each.

    Args:
        count: How many; on an accelerator one is right.

    Attributes:
        shares: Into how many shares a batch is cut.
    """

    def __init__(self, count: int) -> None:
        self.shares = count
        single = (lambda: torch.set_num_threads(1)) if count > 1 else None
        self.pool = ThreadPoolExecutor(count, initializer=single)


def gradients(
    parameters: list[nn.Parameter],
    losses: Callable[[Batch], Tensor],
    batch: Batch,
    workers: Executor,
) -> float:
    """Leave the gradients of a batch in the parameters, and return its loss.

    On a CPU most operations of so small a network are too short to be worth sharing among cores,
    so each core takes a share of the batch instead. ``autograd.grad`` keeps the shares apart. On
    an accelerator whose memory is too small for the batch, its shares come one after another.

    Raises:
        torch.OutOfMemoryError: A sixteenth of the batch is still too large.
    """

    def share(part: Batch) -> tuple[float, tuple[Tensor, ...]]:
        loss = losses(part)
        found = torch.autograd.grad(loss, parameters)
        return loss.item(), found  # in this order: reading the loss waits for the device

    while True:
        parts = batch.split(workers.shares)
        try:
            results = list(workers.pool.map(share, parts))
            break
        except torch.OutOfMemoryError:
            if workers.shares >= MOST_SHARES:
                raise
        workers.shares *= 2
        torch.cuda.empty_cache()
        print(f"denoiser: out of memory, now in {workers.shares} shares", flush=True)
    total = list(results[0][1])
    for _, more in results[1:]:
        torch._foreach_add_(total, more)
    torch._foreach_div_(total, len(parts))
    for parameter, gradient in zip(parameters, total, strict=True):
        parameter.grad = gradient
    return sum(loss for loss, _ in results) / len(results)


def examples(
    work: Path, encoders: Encoders, phase: Phase, seed: int, first_step: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the latents and tokens of each step, from a pool or composed anew."""
    art = render.load(work)
    if phase.pool:
        art = art.subset("trained")
        print(f"denoiser-{phase.name}: {len(art.concepts)} concepts", flush=True)
        pool = Pool(art, encoders, phase, seed)
        for step in itertools.count(first_step):
            drawn = pool.batch(phase.batch)
            if step % RENEWED == 0:
                pool.renew(RENEWED)
            yield drawn
    stream = Stream(art, encoders, phase, seed)
    while True:
        yield stream.batch()


def anchored(
    losses: Callable[[Batch], Tensor], encoders: Encoders, preset: Preset, work: Path, seed: int
) -> Callable[[Batch], Tensor]:
    """Add to a loss that of still imitating the teacher of the text encoder."""
    known = sentences.load(preset, work)
    head = text.load_head(work, encoders.text.device)
    imitation = text.Imitation(known, encoders.tokenizer, encoders.text, head, seed)
    count = min(ANCHORED, preset.text.batch)

    def both(batch: Batch) -> Tensor:
        with mixed(batch.latents.device):
            extra = imitation.loss(count)
        return losses(batch) + preset.denoiser.anchor * extra

    return both


def split(unet: UNet2DConditionModel) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Part the matrices between hidden channels, which Muon is made for, from all else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in unet.named_parameters():
        outer = name.startswith(("conv_in", "conv_out", "time_embedding.linear_1"))
        (others if outer or weight.ndim == 1 else matrices).append(weight)
    return matrices, others


def matrix_optimizers(
    unet: UNet2DConditionModel, matrices: list[nn.Parameter], phase: Phase, *, grown: bool
) -> list[MatrixOptimizer]:
    """Make Muon for the matrices, and another one for those of the level that was added, if any.

    Args:
        unet: What the matrices are of.
        matrices: All that Muon trains; may be none.
        phase: Rates.
        grown: Whether the phase has a level that the first one has not.
    """
    added = {id(weight) for weight in outermost(unet)} if grown and phase.new_rate else set[int]()
    known = [weight for weight in matrices if id(weight) not in added]
    new = [weight for weight in matrices if id(weight) in added]
    rates = ((known, phase.matrix_rate), (new, phase.new_rate))
    return [MatrixOptimizer(weights, rate) for weights, rate in rates if weights]


def train(
    unet: UNet2DConditionModel,
    encoders: Encoders,
    phase: Phase,
    preset: Preset,
    work: Path,
    *,
    minutes: float | None,
    deadline: float = math.inf,
) -> bool:
    """Train one phase; the module ends with the averaged weights.

    Returns:
        Whether the budget is used up, rather than the deadline reached.
    """
    settings = preset.denoiser
    modules: dict[str, nn.Module] = {"unet": unet}
    matrices, others = split(unet) if phase.matrix_rate else ([], list(unet.parameters()))
    groups = [{"params": others, "peak": phase.rate}]
    if phase.text_rate:
        encoders.text.train().requires_grad_(requires_grad=True)
        modules["text"] = encoders.text
        groups.append({"params": list(encoders.text.parameters()), "peak": phase.text_rate})
    # no weight decay: with so few steps it does nothing good
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    muon = matrix_optimizers(unet, matrices, phase, grown=grown(settings, phase) > 0)
    optimizer = Together(adam, *muon)
    ema = Ema(modules, settings.ema)
    device = unet.device
    loop = Loop(
        f"denoiser-{phase.name}",
        work,
        minutes=phase.minutes if minutes is None else minutes,
        modules=modules,
        optimizer=optimizer,
        ema=ema,
        deadline=deadline,
    )
    loop.restore()
    torch.manual_seed(preset.seed + loop.step)
    if not loop.done:
        seed = preset.seed + loop.step
        source = examples(work, encoders, phase, seed, loop.step)
        alphas = noise.scheduler(grown(settings, phase)).alphas_cumprod.to(device)

        def losses(part: Batch) -> Tensor:
            return loss_of(unet, encoders, alphas, part)

        if settings.anchor and phase.text_rate:
            losses = anchored(losses, encoders, preset, work, seed)
        empty = encoders.tokens([""])
        parameters = [*matrices, *(p for group in groups for p in group["params"])]
        workers = Executor(preset.threads if device.type == "cpu" else 1)
        while not loop.done:
            set_rate(
                optimizer,
                step=loop.step,
                fraction=loop.fraction,
                warmup=phase.warmup,
                final=phase.final,
            )
            latents, ids = next(source)
            drop = torch.rand(len(ids), 1, device=ids.device) < settings.empty
            batch = Batch(
                latents,
                torch.where(drop, empty, ids),
                torch.randn_like(latents),
                timesteps(len(latents), latents.device, noisy=phase.noisy),
            )
            loss = gradients(parameters, losses, batch, workers)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            ema.update()
            loop.tick(loss, len(latents))
        loop.save()
    for part, module in modules.items():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(ema.shadow[f"{part}.{name}"])
    encoders.text.eval().requires_grad_(requires_grad=False)
    return loop.finished


def run(
    preset: Preset,
    options: argparse.Namespace,
    device: torch.device,
    *,
    deadline: float = math.inf,
) -> bool:
    """Train every phase, or the one asked for, and save ``unet/`` in the work folder.

    Returns:
        Whether all budgets are used up, rather than the deadline reached.
    """
    work: Path = options.work
    encoders = load_encoders(work, options.init, device, tuned=not options.init)
    torch.manual_seed(preset.seed)
    if options.init:
        unet = UNet2DConditionModel.from_pretrained(options.init / "unet")
    elif options.phase and (work / "unet").exists():
        unet = UNet2DConditionModel.from_pretrained(work / "unet")
    else:
        unet = build(preset, preset.denoiser.phases[0].levels)
    finished = True
    for phase in preset.denoiser.phases:
        if finished and options.phase in (None, phase.name):
            unet = fitted(unet, phase, preset)
            move(unet, device)
            unet.train()
            finished = train(
                unet, encoders, phase, preset, work, minutes=options.minutes, deadline=deadline
            )
            unet.register_to_config(sample_size=phase.size // 4)
            unet.save_pretrained(work / "unet")
            noise.scheduler(grown(preset.denoiser, phase)).save_pretrained(work / "scheduler")
            encoders.text.save_pretrained(work / "text_encoder-joint")
    return finished
