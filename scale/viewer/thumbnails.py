"""Thumbnails of a gallery, drawn by processes beside this one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from rich.console import Console
from rich.progress import Progress

from bimangrasp.visualization.gallery import Gallery, Thumbnail
from bimangrasp.visualization.thumbnails import LIBRARY, Job, draw, jobs_of
from scale.engine.offscreen import drawing_processes
from scale.errors import RunError


def thumbnails(gallery: Gallery, processes: int) -> tuple[Thumbnail | None, ...]:
    """Returns a thumbnail for each exhibit; None for those without a pose.

    In processes of their own: MuJoCo chooses how it draws when it is imported, and a driver may end its process.

    Args:
        gallery: of grasps.
        processes: at most.

    Raises:
        RunError: a process that drew died.
    """
    jobs = list(jobs_of(gallery))
    found: list[Thumbnail | None] = [None] * len(gallery.exhibits)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        at = bar.add_task("thumbnails", total=len(gallery.exhibits))
        for job, drawn in _drawn(jobs, processes):
            for number, thumbnail in zip(job.numbers, drawn, strict=True):
                found[number] = thumbnail
            bar.advance(at, len(drawn))
    return tuple(found)


def _drawn(jobs: list[Job], processes: int) -> Iterator[tuple[Job, list[Thumbnail]]]:
    """Yields the jobs with what was drawn, in their order."""
    context = multiprocessing.get_context("spawn")
    if not jobs:
        return
    with drawing_processes(), ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        try:
            yield from zip(jobs, pool.map(draw, jobs), strict=True)
        except BrokenProcessPool as error:
            raise RunError(
                f"a process that draws thumbnails died: the OpenGL driver, or memory. {LIBRARY}=osmesa (Debian: "
                "libosmesa6) draws without a driver"
            ) from error
