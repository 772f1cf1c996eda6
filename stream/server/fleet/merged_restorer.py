"""The restorers of all nodes as one, for metrics and pages that know one restorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stream.server.restorer_service.restorer_messages import RestorerReport
from stream.server.supervisor.camera_status import RestorerStatus


def merged(restorers: Sequence[RestorerStatus]) -> RestorerStatus | None:
    """One status for all: counts are added up, load and delay are the highest; None for none.

    Its pid is 0, as that of a restorer that does not run, if one of them does not run.
    """
    if not restorers:
        return None
    reports = [one.report for one in restorers if one.report is not None]
    crops = Counter[str]()
    for report in reports:
        crops.update(report.crops)
    summary = None
    if reports:
        slowest = max(reports, key=lambda report: report.delay["p95_ms"] or 0.0)
        summary = RestorerReport(
            cameras=sum(report.cameras for report in reports),
            calls=sum(report.calls for report in reports),
            crops=dict(crops),
            load=max(report.load for report in reports),
            models=tuple(sorted({model for report in reports for model in report.models})),
            engine=next((report.engine for report in reports if report.engine), ""),
            delay=slowest.delay,
        )
    return RestorerStatus(min(one.pid for one in restorers), sum(one.restarts for one in restorers), summary)
