import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from retom.errors import ShapeError
from retom.metrics import psnr, ssim
from retom.metrics.paired import SSIM_K1


def picture(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def noisy(reference: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(99))
    return (reference + sigma * noise).clamp(0, 1)


def smooth(height: int, width: int) -> torch.Tensor:
    """Gradients in three directions: a picture with structure, unlike noise."""
    row = torch.linspace(0, 1, height)[:, None].expand(height, width)
    column = torch.linspace(0, 1, width)[None, :].expand(height, width)
    return torch.stack([row, column, (row * column * 9 % 1)])


@pytest.mark.parametrize(("difference", "expected"), [(0.1, 20.0), (1.0, 0.0), (0.01, 40.0)])
def test_psnr_of_a_constant_difference(difference, expected):
    zeros = torch.zeros(3, 5, 7)
    # float32 holds 0.01 to seven digits: 40 dB to about 1e-6.
    assert psnr(zeros + difference, zeros).item() == pytest.approx(expected, abs=1e-4)


def test_psnr_of_one_wrong_pixel():
    black = torch.zeros(3, 4, 4)
    spot = black.clone()
    spot[0, 0, 0] = 1
    assert psnr(spot, black).item() == pytest.approx(10 * math.log10(48), abs=1e-4)


def test_equal_pictures():
    x = picture(0, 3, 16, 16)
    assert psnr(x, x).item() == math.inf
    assert ssim(x, x).item() == pytest.approx(1, abs=1e-6)


def test_ssim_of_two_flat_pictures_is_its_luminance_term():
    # Without variance the structure term is C2 / C2; what is left is (2ab + C1) / (a² + b² + C1).
    low, high = 0.2, 0.7
    expected = (2 * low * high + SSIM_K1**2) / (low**2 + high**2 + SSIM_K1**2)
    measured = ssim(torch.full((3, 11, 13), low), torch.full((3, 11, 13), high)).item()
    # E[x²] - E[x]² is 1e-8 instead of 0 in float32, against a C2 of 9e-4.
    assert measured == pytest.approx(expected, abs=1e-4)


def test_a_negative_has_negative_structure():
    x = picture(3, 3, 24, 24)
    assert ssim(1 - x, x).item() < 0


@pytest.mark.parametrize("size", [(11, 11), (12, 31), (64, 48)])
@pytest.mark.parametrize("sigma", [0.02, 0.3])
@pytest.mark.parametrize("kind", ["noise", "gradients"])
def test_agrees_with_scikit_image(size, sigma, kind):
    reference = picture(1, 3, *size) if kind == "noise" else smooth(*size)
    other = noisy(reference, sigma)
    a, b = (np.asarray(x.double()) for x in (other, reference))
    expected = structural_similarity(
        a,
        b,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=0,
    )
    # scikit-image runs in float64 here, ours in float32.
    assert ssim(other, reference).item() == pytest.approx(expected, abs=2e-5)
    expected = peak_signal_noise_ratio(b, a, data_range=1.0)
    assert psnr(other, reference).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_a_batch_gives_one_number_a_picture(measure):
    reference = picture(1, 4, 3, 20, 22)
    other = noisy(reference, 0.1)
    together = measure(other, reference)
    assert together.shape == (4,)
    assert together.dtype == torch.float32
    alone = torch.stack([measure(a, b) for a, b in zip(other, reference, strict=True)])
    # Convolutions may be summed in another order for another batch.
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert measure(other[0], reference[0]).shape == ()


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_symmetric(measure):
    x, y = picture(1, 3, 20, 20), picture(2, 3, 20, 20)
    torch.testing.assert_close(measure(x, y), measure(y, x))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_half_precision_is_computed_in_float32(measure):
    x, y = picture(1, 3, 20, 20).half(), picture(2, 3, 20, 20).half()
    measured = measure(x, y)
    assert measured.dtype == torch.float32
    assert torch.equal(measured, measure(x.float(), y.float()))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_eight_bits_are_measured_as_their_floats(measure):
    x, y = (255 * picture(1, 3, 20, 20)).byte(), (255 * picture(2, 3, 20, 20)).byte()
    assert torch.equal(measure(x, y), measure(x.float() / 255, y.float() / 255))


@pytest.mark.parametrize("measure", [psnr, ssim])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3, 12, 12), torch.zeros(3, 12, 13), r"\(3, 12, 12\) and \(3, 12, 13\)"),
        (torch.zeros(12, 12), torch.zeros(12, 12), r"\(12, 12\) was given"),
        (torch.zeros(1, 12, 12), torch.zeros(1, 12, 12), r"\(1, 12, 12\) was given"),
        (torch.zeros(0, 3, 12, 12), torch.zeros(0, 3, 12, 12), r"\(0, 3, 12, 12\) was given"),
        (torch.zeros(3, 12, 12).int(), torch.zeros(3, 12, 12), "torch.int32 was given"),
        (torch.zeros(3, 12, 12), torch.full((3, 12, 12), 255.0), "from 255 to 255"),
        (torch.full((3, 12, 12), torch.nan), torch.zeros(3, 12, 12), "from nan to nan"),
    ],
)
def test_what_is_no_pair_of_pictures_is_refused(measure, a, b, message):
    with pytest.raises(ShapeError, match=message):
        measure(a, b)


def test_a_picture_smaller_than_the_ssim_window_is_refused():
    with pytest.raises(ShapeError, match=r"at least 11x11, its window; 10x40 was given"):
        ssim(torch.zeros(3, 10, 40), torch.zeros(3, 10, 40))
