import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retom.errors import MetricError, ShapeError
from retom.metrics import denoiser_outputs, noise_levels, noised, relative_error

ALPHAS = torch.linspace(0.999, 0.001, 1000)


@given(horizon=st.integers(1, 2000), share=st.floats(0.01, 1))
def test_noise_levels_are_the_middles_of_equal_parts(horizon, share):
    count = max(1, int(share * horizon))
    levels = noise_levels(horizon, count)
    assert len(set(levels)) == count
    for i, level in enumerate(levels):
        assert i * horizon / count - 1 < level < (i + 1) * horizon / count


def test_as_many_levels_as_timesteps_at_most():
    with pytest.raises(MetricError, match=r"from 1 to 10.*11 was given"):
        noise_levels(10, 11)


def test_noised_latents_have_the_signal_and_noise_of_their_level():
    x = torch.full((2, 4, 64, 64), 3.0)
    found = noised(x, 400, ALPHAS, seeds=[1, 2])
    alpha = ALPHAS[400].item()
    # 16384 numbers a sample: standard error of the mean 0.006
    assert found[0].mean().item() == pytest.approx(3 * math.sqrt(alpha), abs=0.03)
    assert found[1].var().item() == pytest.approx(1 - alpha, abs=0.03)


def test_noise_depends_on_seed_and_timestep_alone():
    x = torch.zeros(3, 2, 4, 4)
    together = noised(x, 7, ALPHAS, seeds=[5, 6, 7])
    assert torch.equal(together[1:2], noised(x[:1], 7, ALPHAS, seeds=[6]))
    assert not torch.equal(together[0], together[1])
    other = noised(x[:1], 8, ALPHAS, seeds=[6]) / math.sqrt(1 - ALPHAS[8].item())
    assert not torch.allclose(other, together[1:2] / math.sqrt(1 - ALPHAS[7].item()))


def test_outputs_stack_levels_and_relative_error_turns_them():
    latents = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)) + 1
    options = {"timesteps": [10, 500, 900], "seeds": [3, 4]}
    seen = []

    def whole(x, timestep):
        seen.append(timestep)
        return x

    first = denoiser_outputs(whole, latents, ALPHAS, **options)
    assert seen == [10, 500, 900]
    assert first.shape == (3, 2, 1, 3, 3)
    # An output that is 1 + t / 1000 times as long is off by t / 1000, whatever it is.
    merged = denoiser_outputs(lambda x, t: x * (1 + t / 1000), latents, ALPHAS, **options)
    error = relative_error(merged, first)
    torch.testing.assert_close(error, torch.tensor([[0.01, 0.5, 0.9]] * 2), rtol=1e-4, atol=1e-6)


def test_half_precision_latents_stay_so_for_the_denoiser():
    def denoiser(x, _):
        assert x.dtype == torch.float16
        return x

    latents = torch.ones(1, 1, 2, 2).half()
    found = denoiser_outputs(denoiser, latents, ALPHAS, timesteps=[1], seeds=[0])
    assert found.dtype == torch.float32


def test_relative_error_by_hand():
    whole = torch.tensor([[[3.0, 4.0], [6.0, 8.0]], [[0.0, 1.0], [1.0, 0.0]]])  # (levels, B, 2)
    merged = whole + torch.tensor([0.0, 1.0])
    assert relative_error(merged, whole).tolist() == [
        pytest.approx([0.2, 1.0]),
        pytest.approx([0.1, 1.0]),
    ]
    assert not relative_error(whole, whole).any()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ShapeError, match=r"\(1, 2, 3\) and \(1, 2, 4\) were given"):
        relative_error(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(MetricError, match="zero everywhere"):
        relative_error(torch.ones(1, 1, 3), torch.zeros(1, 1, 3))
    with pytest.raises(ShapeError, match="2 samples and 1 seeds were given"):
        noised(torch.zeros(2, 3), 0, ALPHAS, seeds=[1])
