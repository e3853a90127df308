"""Runs `mode=view`: makes a page for a browser, with a gallery of grasps and a scene of each."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bimangrasp.visualization.page import page, page_data
from bimangrasp.visualization.pictures import why_nothing_is_drawn
from scale.settings.schema import Config
from scale.store import output_paths
from scale.store.grasp_source import GraspSource
from scale.viewer.gallery import gallery_of
from scale.viewer.thumbnails import thumbnails


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
        gallery = replace(gallery, thumbnails=thumbnails(gallery, len(os.sched_getaffinity(0))))
    data = page_data(gallery)
    image = page(data).encode()
    output_paths.write(target, image)
    return ViewReport(target, len(gallery.grasps), len(gallery.shapes), len(image), tuple(data["notes"]))
