"""What tests of plans share that merge by groups and un-merge in another way than by copies."""

import torch
from hypothesis import strategies as st

from retom import Grid, ReToM


@st.composite
def cases(draw):
    """A grid, options of ReToM within its reach, and tokens of two items of six channels."""
    grid = Grid(draw(st.integers(1, 9)), draw(st.integers(1, 7)))
    options = {
        "window": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "reach": draw(st.integers(0, 1)),
        "merge": draw(st.sampled_from(["mean", "representative", "norm_mean"])),
        "rematch": draw(st.booleans()),
    }
    most = ReToM(window=options["window"], ratio=0)
    spare = grid.num_tokens - -(-grid.height // most.window[0]) * -(-grid.width // most.window[1])
    options["ratio"] = draw(st.integers(0, spare)) / grid.num_tokens
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return grid, options, torch.randn(2, grid.num_tokens, 6, generator=generator)


def check_tokens_on_their_own_copy_and_constants_stay(plan, x):
    y = torch.randn(len(x), plan.num_kept, 3, generator=torch.Generator().manual_seed(0))
    back = plan.unmerge(y, x)
    for item, slot in enumerate(plan.slot):
        alone = (slot.bincount(minlength=plan.num_kept) == 1)[slot]
        assert torch.equal(back[item][alone], y[item][slot[alone]])
    torch.testing.assert_close(plan.unmerge(torch.ones_like(y), x), torch.ones_like(back))
