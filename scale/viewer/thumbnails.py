"""Draws the thumbnails of a gallery in processes beside this one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from rich.console import Console
from rich.progress import Progress

from bimangrasp.visualization.page import Gallery, Thumbnail
from bimangrasp.visualization.pictures import LIBRARY, ThumbnailJob, draw, drawing_environment, jobs_of
from scale.engine.process_pool import environment
from scale.errors import RunError


def thumbnails(gallery: Gallery, processes: int) -> tuple[Thumbnail | None, ...]:
    """Returns a thumbnail for each grasp; None for those without a pose.

    In processes of their own: MuJoCo chooses how it draws when it is imported, and a driver may end its process.

    Args:
        gallery: of grasps.
        processes: at most.

    Raises:
        RunError: a process that drew died.
    """
    jobs = list(jobs_of(gallery))
    images: list[Thumbnail | None] = [None] * len(gallery.grasps)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        at = bar.add_task("thumbnails", total=len(gallery.grasps))
        for job, drawn in _drawn(jobs, processes):
            for number, thumbnail in zip(job.numbers, drawn, strict=True):
                images[number] = thumbnail
            bar.advance(at, len(drawn))
    return tuple(images)


def _drawn(jobs: list[ThumbnailJob], processes: int) -> Iterator[tuple[ThumbnailJob, list[Thumbnail]]]:
    """Yields the jobs with what was drawn, in their order."""
    context = multiprocessing.get_context("spawn")
    if not jobs:
        return
    with environment(drawing_environment()), ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        try:
            yield from zip(jobs, pool.map(draw, jobs), strict=True)
        except BrokenProcessPool as error:
            raise RunError(
                f"a process that draws thumbnails died: the OpenGL driver, or memory. {LIBRARY}=osmesa (Debian: "
                "libosmesa6) draws without a driver"
            ) from error
