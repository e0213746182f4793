"""Plans, by hand: six tokens, of which 1 and 4 join token 0, and 5 joins token 3."""

import pytest
import torch

from retom import Plan, ShapeError

REMOVED = torch.tensor([[1, 4, 5]])
TARGET = torch.tensor([[0, 0, 2, 3, 0, 3]])


def plan(mode="mean"):
    return Plan.build(REMOVED, TARGET, mode)


def tokens():
    return torch.tensor([[[3.0, 0.0], [0.0, 3.0], [5.0, 5.0], [0.0, 4.0], [0.0, 0.0], [0.0, -2.0]]])


def test_kept_tokens_stand_in_raster_order():
    assert plan().kept.tolist() == [[0, 2, 3]]
    assert plan().slot.tolist() == [[0, 0, 1, 2, 0, 2]]
    assert (plan().batch_size, plan().num_tokens, plan().num_kept) == (1, 6, 3)


def test_mean_averages_the_members():
    assert plan("mean").merge(tokens()).tolist() == [[[1.0, 1.0], [5.0, 5.0], [0.0, 1.0]]]


def test_representative_is_the_kept_token_itself():
    assert plan("representative").merge(tokens()).tolist() == [[[3.0, 0.0], [5.0, 5.0], [0.0, 4.0]]]


def test_norm_mean_keeps_the_mean_length():
    # Lengths 3, 3 and 0 have the mean 2; lengths 4 and 2 the mean 3.
    expected = torch.tensor([[[2**0.5, 2**0.5], [5.0, 5.0], [0.0, 3.0]]])
    torch.testing.assert_close(plan("norm_mean").merge(tokens()), expected)


def test_norm_mean_of_opposite_tokens_is_zero_not_nan():
    x = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    pair = Plan.build(torch.tensor([[1]]), torch.tensor([[0, 0]]), "norm_mean")
    assert pair.merge(x).tolist() == [[[0.0, 0.0]]]


def test_unmerge_copies_each_kept_row_to_its_members():
    y = torch.tensor([[[1.0], [2.0], [3.0]]])
    assert plan().unmerge(y).tolist() == [[[1.0], [1.0], [2.0], [3.0], [1.0], [3.0]]]


def test_every_item_of_a_batch_has_its_own_assignment():
    both = Plan.build(torch.tensor([[1], [0]]), torch.tensor([[0, 0], [1, 1]]), "representative")
    x = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    assert both.merge(x).tolist() == [[[1.0]], [[4.0]]]
    assert both.unmerge(both.merge(x)).tolist() == [[[1.0], [1.0]], [[4.0], [4.0]]]


def test_pick_gathers_masks_and_never_averages():
    mask = torch.tensor([[[0.0, -1.0, -2.0, -3.0, -4.0, -5.0]]])
    assert plan().pick(mask, dim=-1).tolist() == [[[0.0, -2.0, -3.0]]]
    rotary = torch.arange(12).reshape(1, 6, 2)
    assert plan().pick(rotary, dim=1).tolist() == [[[0, 1], [4, 5], [6, 7]]]


def test_pick_spreads_a_mask_of_batch_one():
    both = Plan.build(torch.tensor([[1], [0]]), torch.tensor([[0, 0], [1, 1]]), "mean")
    assert both.pick(torch.tensor([[7, 8]]), dim=1).tolist() == [[7], [8]]


def test_non_contiguous_tokens_merge_the_same():
    x = tokens()
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert torch.equal(plan().merge(strided), plan().merge(x))


@pytest.mark.parametrize("shape", [(1, 5, 2), (2, 6, 2), (6, 2)])
def test_tokens_of_another_shape_are_refused(shape):
    with pytest.raises(ShapeError, match=r"merge expects .* batch 1 and 6 tokens"):
        plan().merge(torch.zeros(shape))


def test_unmerge_and_pick_refuse_other_shapes():
    with pytest.raises(ShapeError, match=r"unmerge expects .* 3 tokens"):
        plan().unmerge(tokens())
    with pytest.raises(ShapeError, match="pick expects 6 entries along dimension 1"):
        plan().pick(torch.zeros(1, 5), dim=1)
    with pytest.raises(ShapeError, match="a batch of 1 or 1"):
        plan().pick(torch.zeros(3, 6), dim=1)


@pytest.mark.parametrize("mode", ["mean", "representative", "norm_mean"])
def test_gradients_flow_through_merge_and_unmerge(mode):
    x = tokens().double().requires_grad_()
    made = plan(mode)
    assert torch.autograd.gradcheck(lambda x: made.unmerge(made.merge(x)), (x + 0.1,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_means_are_within_one_rounding_of_exact(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 33, generator=generator)
    many = Plan.build(torch.arange(1, 64)[None], torch.zeros(1, 64, dtype=torch.int64), "mean")
    exact = x.to(dtype).double().mean(dim=1, keepdim=True)
    error = (many.merge(x.to(dtype)).double() - exact).abs()
    # Accumulating in float32 leaves the final rounding alone: half a unit in the last place.
    unit = torch.finfo(dtype).eps * exact.abs().clamp_min(torch.finfo(dtype).tiny)
    assert (error <= 0.51 * unit + 1e-6).all()


@pytest.mark.parametrize("mode", ["mean", "representative", "norm_mean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_large_numbers_do_not_overflow(dtype, mode):
    many = Plan.build(torch.arange(1, 64)[None], torch.zeros(1, 64, dtype=torch.int64), mode)
    x = torch.full((1, 64, 5), 40000.0, dtype=dtype)
    assert torch.equal(many.merge(x), x[:, :1])
