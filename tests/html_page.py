"""Reads the data of a page of mode=view."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def read_page(path: Path) -> dict[str, Any]:
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    return json.loads(data[1])
