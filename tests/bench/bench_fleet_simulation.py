"""Time lost to failing nodes in a large fleet, simulated with the product's own decisions.

    python -m tests.bench.bench_fleet_simulation [--json FILE]

1,000 cameras run on 100 nodes. Nodes die at random (Poisson) and come back after five minutes. The
coordinator is started again once in each run. Time is simulated, so the figures do not depend on the machine.
"""

from __future__ import annotations

import argparse
import random
import statistics

from stream.lab.bench.report import Table
from tests.bench.live_tools import add_json_option, write_json
from tests.simulated_fleet import Fleet, SimulatedNode, cameras

REPAIR_S = 300.0
SETTLE_S = 60.0
COORDINATOR_S = 2.0
"""Time for which no coordinator runs when it is started again."""
DAY_S = 86400.0


class Measured:
    """One simulated run, and what it showed."""

    def __init__(self, nodes: int, count: int, seconds: float, mean_s: float, seed: int) -> None:
        """`mean_s`: mean time between two failures of one node; infinite: none fails."""
        self.random = random.Random(seed)
        self.fleet = fleet = Fleet(self.random)
        self.count, self.seconds, self.mean_s = count, seconds, mean_s
        self.failures = 0
        fleet.book.set_all(cameras(count))
        for number in range(nodes):
            self._watch_over(fleet.add_node(f"node-{number}", cores=8.0))
        fleet.run(SETTLE_S)
        assert len(fleet.where()) == count
        self._began_s, messages, saves = fleet.now_s, fleet.messages, fleet.saves
        self._count_from_now()
        fleet.at(seconds / 2, lambda: fleet.stop_coordinator(COORDINATOR_S))
        fleet.run(seconds)
        fleet.finish()
        self.messages_s = (fleet.messages - messages) / seconds
        self.saves_h = (fleet.saves - saves) / seconds * 3600
        self.lost_s = count * seconds - sum(fleet.lived_s.values())

    def _count_from_now(self) -> None:
        self.fleet.lived_s.clear()
        for node in self.fleet.nodes:
            for one in node.running.values():
                one.began_s = self.fleet.now_s

    def _watch_over(self, node: SimulatedNode) -> None:
        if self.mean_s < float("inf"):
            self.fleet.at(self.random.expovariate(1 / self.mean_s), lambda: self._kill(node))

    def _kill(self, node: SimulatedNode) -> None:
        self.failures += 1
        node.die()
        self.fleet.nodes.remove(node)
        self.fleet.at(REPAIR_S, lambda: self._watch_over(self.fleet.add_node(node.name, cores=node.cores)))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=60)
    add_json_option(parser)
    arguments = parser.parse_args()
    rows = []
    for words, mean_s in (
        ("none", float("inf")),
        ("a day", DAY_S),
        ("6 hours", DAY_S / 4),
        ("an hour", 3600.0),
    ):
        runs = [
            Measured(arguments.nodes, arguments.cameras, arguments.minutes * 60, mean_s, seed)
            for seed in range(2)
        ]
        seconds = sum(one.seconds for one in runs)
        failures = sum(one.failures for one in runs)
        lost_s = sum(one.lost_s for one in runs)
        rows.append(
            {
                "mean": words,
                "failures": failures / seconds * DAY_S,
                "lost": lost_s / 60 / seconds * DAY_S,
                "share": lost_s / seconds / arguments.cameras * 100,
                "each": lost_s / failures if failures else None,
                "messages": statistics.mean(one.messages_s for one in runs),
                "saves": statistics.mean(one.saves_h for one in runs),
            }
        )
        print(rows[-1], flush=True)
    columns = {
        "mean": "a node fails once in",
        "failures": "failures a day",
        "lost": "lost camera-minutes a day",
        "share": "of all, %",
        "each": "lost camera-seconds a failure",
        "messages": "messages to the coordinator a second",
        "saves": "saves of the state an hour",
    }
    title = f"{arguments.cameras} cameras on {arguments.nodes} nodes, each of which runs ten; simulated"
    write_json(arguments.json, "fleet-simulation", [Table("days", title, columns, rows)])


if __name__ == "__main__":
    main()
