"""Runs `mode=view`: makes a page for a browser, with a gallery of grasps and a scene of each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bimangrasp.visualization.page import Gallery, Thumbnail, page, page_data
from bimangrasp.visualization.pictures import (
    LIBRARY,
    ThumbnailJob,
    draw,
    drawing_environment,
    jobs_of,
    why_nothing_is_drawn,
)
from scale.engine.process_pool import environment
from scale.errors import RunError
from scale.screen import stage
from scale.settings.schema import Config
from scale.store import path_settings
from scale.store.path_settings import GraspSource
from scale.viewer.gallery import gallery_of


class ViewReport(NamedTuple):
    """What a page shows. `str(report)` is for people.

    Attributes:
        path: the page.
        grasps, objects: how many it shows.
        size: of the file, bytes.
        notes: what else is to be said; the page says it too.
    """

    path: Path
    grasps: int
    objects: int
    size: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"note: {note}" for note in self.notes]
        shown = f"{self.grasps} grasps of {self.objects} objects, {self.size / 1e6:.1f} MB"
        return "\n".join([*lines, f"{self.path}: {shown}; open it in a browser"])


def view(config: Config, source: GraspSource, target: Path) -> ViewReport:
    """Returns what the page of a run, or of a grasp file, shows; the page is written.

    Raises:
        InputError: nothing to show, other hands or another mesh.
    """
    gallery = gallery_of(config, source)
    fault = why_nothing_is_drawn()
    if fault:
        note = f"the browser draws the thumbnails, for MuJoCo finds no OpenGL here: {fault}"
        gallery = replace(gallery, notes=(*gallery.notes, note))
    else:
        most, count = config.view.drawn, len(gallery.grasps)
        gallery = replace(gallery, thumbnails=thumbnails(gallery, len(os.sched_getaffinity(0)), most))
        if count > most:
            note = f"the browser draws {count - most} of the {count} thumbnails when they come into sight (view.drawn)"
            gallery = replace(gallery, notes=(*gallery.notes, note))
    data = page_data(gallery)
    image = page(data).encode()
    path_settings.write(target, image)
    return ViewReport(target, len(gallery.grasps), len(gallery.shapes), len(image), tuple(data["notes"]))


def thumbnails(gallery: Gallery, processes: int, most: int) -> tuple[Thumbnail | None, ...]:
    """Returns a thumbnail for each grasp; None for those without a pose, and behind the first `most`.

    In processes of their own: MuJoCo chooses how it draws when it is imported, and a driver may end its process.

    Args:
        gallery: of grasps.
        processes: at most.
        most: thumbnails are drawn.

    Raises:
        RunError: a process that drew died.
    """
    jobs = list(jobs_of(gallery, most))
    images: list[Thumbnail | None] = [None] * len(gallery.grasps)
    with stage("thumbnails", sum(len(job.numbers) for job in jobs), "drawn") as drawing:
        for job, drawn in _drawn(jobs, processes):
            for number, thumbnail in zip(job.numbers, drawn, strict=True):
                images[number] = thumbnail
            drawing.advance(len(drawn))
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
