"""The clock on written-down timesteps: where pictures begin, and when plans are renewed."""

import pytest
import torch

from retom.clock import Clock


def renewals(levels, refresh, *, clock=None):
    """Which calls make plans anew; each noise level is read from an object of its own."""
    clock = clock or Clock()
    return [clock.advance(noise, object(), refresh) for noise in levels]


@pytest.mark.parametrize(
    ("refresh", "expected"),
    [
        (None, [True, True, True, True, True]),
        (1, [True, True, True, True, True]),
        (2, [True, False, True, False, True]),
        (3, [True, False, False, True, False]),
        (99, [True, False, False, False, False]),
        ((0.6,), [True, False, True, False, False]),
        ((0.7, 0.6), [True, True, True, False, False]),
        ((0.9, 0.2), [True, False, False, False, True]),
    ],
)
def test_plans_are_renewed_when_asked(refresh, expected):
    assert renewals([0.9, 0.7, 0.5, 0.3, 0.1], refresh)[1:] == expected[1:]
    assert renewals([0.9], refresh) == [True]


def test_a_threshold_counts_from_the_call_at_or_below_it():
    assert renewals([0.9, 0.7, 0.5], (0.7,)) == [True, True, False]


def test_it_says_which_calls_begin_a_picture():
    clock, begins = Clock(), []
    for noise in (0.9, 0.5, 0.5, 0.9, 0.4):
        clock.advance(noise, object(), None)
        begins.append(clock.begins)
    assert begins == [True, False, False, True, False]
    clock.advance(0.3, object(), None)
    clock.reset()
    assert not clock.begins


def test_a_rising_timestep_begins_another_picture():
    clock = Clock()
    assert renewals([0.9, 0.5], 9, clock=clock) == [True, False]
    assert renewals([0.9, 0.5], 9, clock=clock) == [True, False]
    assert renewals([0.6, 0.4], 9, clock=clock) == [True, False]


def test_a_second_evaluation_at_a_timestep_is_the_same_step():
    """Heun: t0, t1, t1, t2, t2."""
    assert renewals([0.9, 0.6, 0.6, 0.3, 0.3], 1) == [True, True, False, True, False]


def test_both_halves_of_guidance_share_the_first_step_when_they_share_its_timestep():
    clock, timestep = Clock(), object()
    assert [clock.advance(0.9, timestep, 1) for _ in range(2)] == [True, False]


def test_one_step_pictures_do_not_share_plans():
    assert renewals([0.999, 0.999, 0.999], 4) == [True, True, True]


def test_without_refresh_every_call_plans_also_at_a_repeated_timestep():
    assert renewals([0.9, 0.5, 0.5], None) == [True, True, True]


def test_turns_count_timesteps_not_calls_and_start_again_with_a_picture():
    clock = Clock()
    turns = []
    for noise in (0.9, 0.6, 0.6, 0.3, 0.9):
        clock.advance(noise, object(), None)
        turns.append(clock.turn)
    assert turns == [0, 1, 1, 2, 0]


def test_reset_begins_another_picture():
    clock = Clock()
    clock.advance(0.9, object(), 9)
    clock.reset()
    assert clock.advance(0.5, object(), 9)
    assert clock.turn == 0


def parts_of_one_tensor(*levels):
    """Timesteps as a pipeline's loop has them, views of the scheduler's."""
    return [(level, part) for level, part in zip(levels, torch.tensor(levels), strict=True)]


def test_a_picture_after_one_that_was_broken_off_may_start_lower():
    clock = Clock()
    for level, part in parts_of_one_tensor(0.9, 0.8, 0.7):
        clock.advance(level, part, 9)
    begun = []
    for level, part in parts_of_one_tensor(0.4, 0.3, 0.2):
        begun.append(clock.advance(level, part.expand(2), 9))
    assert begun == [True, False, False]


def test_a_tensor_made_for_every_call_begins_no_picture():
    clock = Clock()
    assert [clock.advance(t, torch.tensor([t]), 9) for t in (0.9, 0.7, 0.5, 0.3)] == [
        True,
        False,
        False,
        False,
    ]
    # nor after a picture whose timesteps were of one tensor, once that has shown
    renewed = [clock.advance(level, part, 9) for level, part in parts_of_one_tensor(0.9, 0.8, 0.7)]
    renewed += [clock.advance(t, torch.tensor([t]), 9) for t in (0.6, 0.5, 0.4, 0.3)]
    assert renewed == [True, False, False, True, False, False, False]
