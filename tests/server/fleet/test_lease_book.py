"""The coordinator's decisions in simulated time: no camera runs twice, whatever fails."""

from __future__ import annotations

import random

import pytest
from simulated_fleet import Fleet, Network, cameras

from stream.errors import ConfigError, NotFoundError
from stream.server.camera_config import CameraSettings
from stream.server.fleet.fleet_messages import LeaseTimes, NodeReport
from stream.server.fleet.lease_book import LeaseBook, SavedBook


def fleet(nodes=3, count=6, *, cores=2.0, seed=1, **options) -> Fleet:
    made = Fleet(random.Random(seed), **options)
    made.book.set_all(cameras(count))
    for number in range(nodes):
        made.add_node(f"node-{number}", cores)
    return made


def settled(made: Fleet) -> Fleet:
    made.run(10)
    assert len(made.where()) == len(made.book.cameras)
    return made


def spread(made: Fleet) -> list[int]:
    """Cameras of each node, fewest first."""
    places = list(made.where().values())
    return sorted(places.count(node.name) for node in made.nodes if node.alive)


def test_cameras_are_spread_over_the_nodes_that_join_at_the_start():
    assert spread(settled(fleet())) == [2, 2, 2]


def test_the_cameras_of_a_dead_node_are_live_elsewhere_within_ten_seconds():
    made = settled(fleet())
    dead = made.nodes[0]
    lost = [one.order.camera for one in dead.running.values()]
    before = len(made.starts)
    dead.die()
    died_s = made.now_s
    made.run(15)
    again = made.starts[before:]
    assert sorted(camera for _, camera, _ in again) == sorted(lost)
    assert all(at_s - died_s + made.start_s < 10 for at_s, _, _ in again)
    assert spread(made) == [3, 3] and "node_lost" in made.kinds


def test_a_node_that_is_cut_off_ends_its_cameras_before_others_get_them():
    made = settled(fleet())
    made.nodes[0].cut_off = True
    made.run(20)  # every start is checked
    assert spread(made) == [0, 3, 3]
    made.nodes[0].cut_off = False
    made.run(5)
    assert sorted(made.where().values()).count("node-0") == 0, "its old leases are over"


def test_a_node_that_hangs_and_wakes_up_with_stale_leases_runs_none_of_them():
    made = settled(fleet())
    node = made.nodes[1]
    held = {one.order.number for one in node.running.values()}
    node.hangs_until_s = made.now_s + 30
    made.run(29)
    assert len(made.where()) == 6 and "node-1" not in made.where().values()
    made.run(10)
    assert not held & node.running.keys()


@pytest.mark.parametrize("rate", [0.8, 1.25])
def test_clocks_that_run_fast_or_slow_and_show_other_times_do_no_harm(rate):
    made = Fleet(random.Random(3))
    made.book.set_all(cameras(6))
    made.add_node("skewed", rate=rate, offset_s=-5e8)
    made.add_node("right")
    made.add_node("future", rate=1 / rate, offset_s=1e9)
    settled(made)
    for node in made.nodes:
        node.cut_off = True
        made.run(20)
        node.cut_off = False
        made.run(20)
    assert len(made.where()) == 6


def test_a_coordinator_that_starts_again_quickly_interrupts_no_camera():
    made = settled(fleet())
    before = len(made.starts)
    made.stop_coordinator(for_s=2)
    made.run(60)
    assert len(made.starts) == before and len(made.where()) == 6


def test_a_coordinator_that_is_gone_for_long_takes_up_its_state_with_higher_numbers():
    made = settled(fleet())
    highest = max(number for _, _, number in made.starts)
    made.stop_coordinator(for_s=30)
    made.run(20)
    assert not made.where(), "nobody may run a camera without the coordinator"
    made.nodes[0].die()
    made.run(40)
    assert spread(made) == [3, 3]
    assert max(number for _, _, number in made.starts) > highest


def test_a_fleet_without_room_lets_cameras_wait_and_says_so():
    made = fleet(nodes=1, count=6, cores=1.0)
    made.run(10)
    assert 0 < len(made.where()) < 6
    waiting = [one for one in made.book.cameras.values() if one.waits]
    assert len(waiting) == 6 - len(made.where())
    assert all(one.waits.startswith("waits for room: it needs 0.") for one in waiting)
    assert made.kinds.count("camera_waits") == len(waiting)
    made.add_node("more", 4.0)
    made.run(10)
    assert len(made.where()) == 6 and not any(one.waits for one in made.book.cameras.values())


def test_without_any_node_all_cameras_wait_for_one():
    made = fleet(nodes=0, count=2)
    made.run(25)
    assert {one.waits for one in made.book.cameras.values()} == {"waits for a node: none can run cameras"}


def test_the_camera_of_the_higher_priority_gets_the_last_room():
    made = fleet(nodes=1, count=0, cores=0.5)
    for name, priority in (("a", 3), ("b", 8), ("c", 5)):
        made.book.put(name, CameraSettings(source="test:", priority=priority))
    made.run(10)
    assert set(made.where()) == {"b"}


def test_a_node_that_joins_gets_cameras_one_after_the_other_and_no_more_than_help():
    made = settled(fleet(nodes=1, count=4))
    made.run(600)
    made.add_node("new")
    assert "camera_moved" not in made.kinds
    made.run(20)
    assert spread(made) == [1, 3] and made.kinds.count("camera_moved") == 1, "one at a time"
    made.run(600)
    assert spread(made) == [2, 2] and made.kinds.count("camera_moved") == 2


def test_nothing_is_moved_where_all_nodes_are_nearly_equal():
    made = settled(fleet(nodes=3, count=7, cost=lambda _: 0.6))
    made.run(3600)
    assert "camera_moved" not in made.kinds


def test_a_removed_camera_is_forgotten_once_it_has_ended():
    made = settled(fleet())
    made.book.remove("camera-0")
    with pytest.raises(ConfigError, match="is being removed"):
        made.book.put("camera-0", CameraSettings(source="test:"))
    made.run(10)
    assert "camera-0" not in made.book.cameras and "camera-0" not in made.where()
    with pytest.raises(NotFoundError):
        made.book.remove("camera-0")


def test_a_disabled_camera_needs_no_node_until_it_is_enabled():
    made = settled(fleet(count=2))
    made.book.put("camera-0", CameraSettings(source="test:", enabled=False))
    made.run(10)
    assert set(made.where()) == {"camera-1"}
    made.book.put("camera-0", CameraSettings(source="test:"))
    made.run(10)
    assert set(made.where()) == {"camera-0", "camera-1"}


def test_settings_are_sent_once_and_again_after_each_change():
    book = LeaseBook(0.0)
    book.put("door", CameraSettings(source="test:"))

    def renew(number, holds):
        answer = book.renew(NodeReport("r", "n", "n", 2.0, number, holds), 10.0)
        book.expect(1, 10.0)
        book.tick(10.0)
        book.mark_saved(book.to_saved())
        return answer.orders

    assert renew(1, {}) == ()
    (order,) = renew(2, {})
    assert order.settings.source == "test:"
    (order,) = renew(3, {order.number: order.stamp})
    assert order.settings is None
    book.put("door", CameraSettings(source="test:", priority=7), restart=False)
    (changed,) = renew(4, {order.number: order.stamp})
    assert changed.settings.priority == 7 and changed.restart == order.restart
    assert renew(4, {}) == (), "an old report"


def test_a_lease_is_shown_only_after_it_was_saved():
    book = LeaseBook(0.0)
    book.put("door", CameraSettings(source="test:"))
    book.renew(NodeReport("r", "n", "n", 2.0, 1), 9.0)
    book.expect(1, 10.0)
    book.tick(10.0)
    assert book.cameras["door"].lease is not None
    assert book.renew(NodeReport("r", "n", "n", 2.0, 2), 10.0).orders == ()
    book.mark_saved(book.to_saved())
    assert len(book.renew(NodeReport("r", "n", "n", 2.0, 3), 11.0).orders) == 1


def test_a_node_with_a_problem_gets_nothing():
    book = LeaseBook(0.0)
    book.put("door", CameraSettings(source="test:"))
    book.renew(NodeReport("r", "n", "n", 2.0, 1, problem="the data folder cannot be made"), 9.0)
    book.expect(1, 10.0)
    book.tick(10.0)
    assert book.cameras["door"].lease is None and book.cameras["door"].waits


def test_the_state_survives_its_file():
    made = settled(fleet())
    again = SavedBook.model_validate_json(made.book.to_saved().model_dump_json())
    assert again == made.book.to_saved()


def test_times_that_would_let_a_camera_run_twice_are_refused():
    with pytest.raises(ValueError, match="expected renew_s <"):
        LeaseTimes(valid_s=6, expire_s=6)


def test_the_simulation_finds_a_camera_that_runs_twice():
    made = settled(fleet())
    made.book.times = LeaseTimes(renew_s=0.2, valid_s=1.5, expire_s=1.6)  # the nodes' are longer
    made.nodes[0].cut_off = True
    with pytest.raises(AssertionError, match=r"starts on node-\d and runs on node-0"):
        made.run(20)


@pytest.mark.parametrize("seed", range(10))
def test_no_camera_runs_twice_whatever_happens(seed):
    """An hour of faults: messages lost and late, clocks that drift, nodes and coordinators that fail."""
    chance = random.Random(seed)
    made = Fleet(chance, network=Network(delay_s=(0.001, 2.0), loss=0.1))
    made.book.set_all(cameras(12))
    for number in range(5):
        made.add_node(
            f"node-{number}", cores=4.0, rate=chance.uniform(0.95, 1.05), offset_s=chance.uniform(-1e6, 1e6)
        )
    for _ in range(200):
        made.run(chance.expovariate(1 / 18))
        node = chance.choice(made.nodes)
        match chance.choice(("cut", "join again", "hang", "die", "coordinator", "change")):
            case "cut":
                node.cut_off = True
            case "join again":
                node.cut_off = False
            case "hang":
                node.hangs_until_s = made.now_s + chance.uniform(1, 20)
            case "die":
                node.die()
                made.nodes.remove(node)
                made.add_node(node.name, cores=4.0, rate=chance.uniform(0.95, 1.05))
            case "coordinator":
                if made.book is not None:
                    made.stop_coordinator(chance.uniform(0.5, 10))
            case "change":
                if made.book is not None:
                    name = f"camera-{chance.randrange(12)}"
                    made.book.put(name, CameraSettings(source="test:", priority=chance.randint(1, 10)))
    made.network.loss, made.network.delay_s = 0.0, (0.001, 0.01)
    for node in made.nodes:
        node.cut_off = False
    made.run(40)
    assert len(made.where()) == 12
    assert len(made.starts) > 30
