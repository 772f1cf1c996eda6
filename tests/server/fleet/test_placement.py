"""Which node gets a camera, which camera is moved, and how costs are estimated."""

from __future__ import annotations

import pytest

from stream.server.fleet.placement import Move, NodeLoad, best_move, choose_node, updated_cost


def nodes(**used: float) -> dict[str, NodeLoad]:
    return {run: NodeLoad(run, capacity=2.0, used=cores) for run, cores in used.items()}


def test_a_camera_goes_where_it_loads_least_and_only_where_it_fits():
    assert choose_node(0.5, nodes(a=1.0, b=0.6, c=1.9).values()) == "b"
    assert choose_node(0.5, nodes(a=1.6, b=1.8).values()) is None
    large = NodeLoad("large", capacity=16.0, used=2.0)
    assert choose_node(0.5, [*nodes(a=0.5).values(), large]) == "large"


def test_a_camera_that_is_larger_than_any_node_fits_on_an_empty_one():
    assert choose_node(5.0, nodes(a=0.1, b=0.0).values()) == "b"


def test_a_node_without_cores_gets_nothing():
    assert choose_node(0.1, [NodeLoad("a", capacity=0.0, used=0.0)]) is None


def test_the_move_is_the_one_that_lowers_the_highest_load_most():
    full = nodes(a=1.8, b=0.2)
    assert best_move(full, {"a": {"large": 1.6, "half": 0.8, "small": 0.1}}) == Move("half", "a", "b")


@pytest.mark.parametrize(
    ("used", "movable"),
    [
        ({"a": 0.9, "b": 0.0}, {"a": {"x": 0.45}}),  # nobody gains by it
        ({"a": 1.8, "b": 1.5}, {"a": {"x": 0.2}}),  # hardly lower
        ({"a": 1.8, "b": 0.0}, {"a": {"x": 1.8}}),  # the same load elsewhere
        ({"a": 1.8, "b": 0.0}, {}),  # all have just come
        ({"a": 1.8}, {"a": {"x": 0.5}}),  # nowhere to go
    ],
)
def test_nothing_is_moved_without_a_noticeable_gain(used, movable):
    assert best_move(nodes(**used), movable) is None


def test_an_estimate_rises_within_seconds_and_falls_within_minutes():
    assert updated_cost(None, 0.7, False, 1) == 0.7
    assert updated_cost(0.2, 1.2, False, 30) > 1.1
    assert updated_cost(1.2, 0.2, False, 30) > 1.1
    assert updated_cost(1.2, 0.2, False, 3600) < 0.25


def test_a_camera_that_is_held_back_is_not_taken_for_cheap():
    assert updated_cost(1.2, 0.2, True, 3600) == 1.2
    assert updated_cost(1.2, 1.5, True, 3600) > 1.2
