"""Jobs that run at the same time, unless one needs another or both use the same things."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Callable, Optional

UNKNOWN = 60  # seconds that a job may take of which nothing else is known


@dataclasses.dataclass(frozen=True)
class Job:
    """One piece of work, done by calling ``run``.

    ``uses`` is what no other job may use meanwhile; ``after`` the names of jobs that must have succeeded before it
    begins.
    """

    name: str
    run: Callable[[], None]
    uses: Collection[str] = ()
    after: Collection[str] = ()


def weight(job: Job, jobs: Collection[Job], seconds: Mapping[str, float]) -> float:
    """Seconds that wait for a job: its own, and those of what comes after it or uses the same things."""
    after = [weight(other, jobs, seconds) for other in jobs if job.name in other.after]
    same = [sum(seconds.get(other.name, UNKNOWN) for other in jobs if thing in other.uses) for thing in job.uses]
    return max([seconds.get(job.name, UNKNOWN) + max(after, default=0), *same])


def run_jobs(jobs: Sequence[Job], at_once: int, seconds: Optional[Mapping[str, float]] = None) -> None:
    """Run all jobs, as many as ``at_once`` at the same time, those for which the most ``seconds`` wait first.

    ``seconds`` tells about how long each takes. A job that raises keeps only those from running that come after it;
    the first exception is raised when all have ended.
    """
    known = seconds or {}
    waiting = sorted(jobs, key=lambda job: (-weight(job, jobs, known), -known.get(job.name, UNKNOWN)))
    running: list[Job] = []
    succeeded: set[str] = set()
    errors: list[BaseException] = []
    changed = threading.Condition()

    def work(job: Job) -> None:
        error: Optional[BaseException] = None
        try:
            job.run()
        except BaseException as raised:
            error = raised
        with changed:
            running.remove(job)
            if error is None:
                succeeded.add(job.name)
            else:
                errors.append(error)
            changed.notify()

    with changed:
        while True:
            used = {thing for job in running for thing in job.uses}
            ready = [job for job in waiting if succeeded.issuperset(job.after) and used.isdisjoint(job.uses)]
            if ready and len(running) < at_once:
                waiting.remove(ready[0])
                running.append(ready[0])
                threading.Thread(target=work, args=(ready[0],), name=ready[0].name).start()
            elif running:
                changed.wait()
            else:
                break
    if errors:
        raise errors[0]
