"""The command ``retom``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import retom
from retom.cli import (
    bench,
    check,
    doctor,
    evaluate,
    explain,
    generate,
    grid,
    inspect,
    studio,
    tune,
)
from retom.errors import ConfigError, RetomError

if TYPE_CHECKING:
    from collections.abc import Sequence

BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


class _Parser(argparse.ArgumentParser):
    """Reports what is wrong as every other error of retom: one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what :func:`main` prints."""
        complaint = message.removeprefix("argument ").rstrip(".")
        raise ConfigError(f"{complaint}. See {self.prog} --help.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; those of the process if not given.

    Returns:
        The exit status: 0, or 2 after one sentence on stderr, 130 when interrupted.
    """
    try:
        options = _parser().parse_args(argv)
        options.command = ["retom", *(sys.argv[1:] if argv is None else argv)]
        options.run(options)
        sys.stdout.flush()
    except RetomError as error:
        print(f"retom: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("retom: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Who read the output has left; the interpreter's last flush must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="retom", description="Token merging that makes text-to-image models cheaper to run."
    )
    parser.add_argument("--version", action="version", version=f"retom {retom.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    generate.set_up(
        commands.add_parser(
            "generate",
            help="draw a picture with merging",
            description="Draw a picture with merging; with --compare also without, side by side.",
        )
    )
    evaluate.set_up(
        commands.add_parser(
            "eval",
            help="compare methods, ratios and scopes on a model",
            description="Compare ways of merging on a model: the error of the denoiser and its "
            "speed for all, pictures for the best few. Killed and started again it continues.",
        )
    )
    check.set_up(
        commands.add_parser(
            "check",
            help="see in a few pictures whether a setting pays",
            description="Draw a few pictures with and without merging, in turns, and say whether "
            "the setting pays on this machine.",
        )
    )
    bench.set_up(
        commands.add_parser(
            "bench",
            help="time methods against un-merged and against free merging",
            description="Time ways of merging on a model, interleaved in one process, against "
            "un-merged and against an oracle, merging that costs nothing.",
        )
    )
    tune.set_up(
        commands.add_parser(
            "tune",
            help="find a schedule for a speed or a closeness",
            description="Find what to merge on which level and at which noise, for a speed or for "
            "pictures as close as asked, and write a configuration. Killed and started again it "
            "continues.",
        )
    )
    explain.set_up(
        commands.add_parser(
            "explain",
            help="what merging can gain on a model, without its weights",
            description="Count what every layer costs, un-merged and merged, and what that can "
            "gain at most. Needs no weights and computes nothing.",
        )
    )
    inspect.set_up(
        commands.add_parser(
            "inspect",
            help="see what merged where",
            description="Draw a picture with merging and show which tokens became one in a layer, "
            "how alike they were and what that lost: a picture, an SVG or an animation.",
        )
    )
    grid.set_up(
        commands.add_parser(
            "grid",
            help="one picture with many settings: methods and ratios by seeds",
            description="Draw a prompt un-merged and with each method at each ratio, from each "
            "seed, on one page.",
        )
    )
    doctor.set_up(
        commands.add_parser(
            "doctor",
            help="what is installed, and whether merging will pay on this machine",
            description="Versions, devices, attention kernels, extras and the bundled models; and "
            "one layer timed un-merged and merged, in a few seconds. Needs torch alone.",
        )
    )
    studio.set_up(
        commands.add_parser(
            "studio",
            help="a page in the browser to try merging on",
            description="Serve a page that draws prompts un-merged and merged, side by side, and "
            "shows what merged where. It is reached from this machine alone unless --host says "
            "otherwise.",
        )
    )
    return parser
