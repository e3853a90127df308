"""The page of a gallery: one HTML file with everything in it, which asks nothing of any network."""

from __future__ import annotations

import json
import re
import zipfile
from importlib.resources import files
from pathlib import Path

import trimesh

from bimangrasp.errors import InputError
from bimangrasp.visualization.page_data import Json

DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.DOTALL)
CONTROLS_END = "THREE.TrackballControls=TrackballControls;})();"
"""Where three.js and its controls end in trimesh's viewer; a loader and trimesh's own page follow."""


def page(data: Json) -> str:
    """Returns the HTML.

    Args:
        data: of `page_data.page_data`.
    """
    assets = files("bimangrasp.visualization") / "assets"
    parts = {
        "style": (assets / "page.css").read_text(encoding="utf-8"),
        "library": three_library(),
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "script": "\n".join((assets / name).read_text(encoding="utf-8") for name in ("scene.js", "gallery.js")),
    }
    pieces = re.split(r"\{\{(\w+)\}\}", (assets / "page.html").read_text(encoding="utf-8"))
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def read_page(path: Path) -> Json:
    """Returns the data of a page.

    Raises:
        InputError: it is none of ours.
    """
    found = DATA.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise InputError(f"{path} is no page of mode=view: it has no data")
    return json.loads(found[1])


def three_library() -> str:
    """Returns three.js with its trackball controls (MIT), as trimesh delivers them inside its own viewer.

    Raises:
        InputError: this version of trimesh has them no longer.
    """
    path = Path(trimesh.__file__).parent / "resources" / "templates" / "viewer.zip"
    template = zipfile.ZipFile(path).read("viewer.html.template").decode() if path.is_file() else ""
    _, opens, rest = template.partition("<script>")
    source, end, _ = rest.partition(CONTROLS_END)
    if not (opens and end and "Three.js Authors" in source):
        raise InputError(
            f"trimesh {trimesh.__version__} does not deliver three.js in {path}, which draws the page; wanted one that "
            "does, such as pip install trimesh==5.2.0"
        )
    return source + end
