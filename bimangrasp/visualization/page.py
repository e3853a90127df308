"""Makes the page of a gallery: one HTML file with everything in it, which asks nothing of any network."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from bimangrasp.errors import InputError

if TYPE_CHECKING:
    from bimangrasp.visualization.page_data import Json

DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.DOTALL)


def page(data: Json) -> str:
    """Returns the HTML.

    Args:
        data: of `page_data.page_data`.
    """
    parts = {
        "style": _asset("page.css"),
        "library": three_library(),
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "script": "\n".join(_asset(name) for name in ("scene.js", "gallery.js")),
    }
    pieces = re.split(r"\{\{(\w+)\}\}", _asset("page.html"))
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def read_page(path: Path) -> Json:
    """Returns the data of a page.

    Raises:
        InputError: it is none of ours.
    """
    data = DATA.search(path.read_text(encoding="utf-8"))
    if data is None:
        raise InputError(f"{path} is no page of mode=view: it has no data")
    return json.loads(data[1])


def three_library() -> str:
    """Returns three.js with its trackball controls, behind a comment with its version and its license."""
    notice = _asset("three.VERSION") + "\n" + _asset("three.LICENSE")
    return "\n".join([f"/*\n{notice}*/", _asset("three.min.js"), _asset("TrackballControls.js")])


def _asset(name: str) -> str:
    """Returns the text of a file that the package brings."""
    return (files("bimangrasp.visualization") / "assets" / name).read_text(encoding="utf-8")
