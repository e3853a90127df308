"""Runs CoACD on one mesh in a process of its own: `python coacd_process.py FOLDER`.

FOLDER has `mesh.npz` (vertices, faces) and `settings.json` (arguments of `coacd.run_coacd`) and receives
`pieces.npz` (vertices_0, vertices_1, ...). A process of its own because CoACD ends the whole process where its native
code fails, prints as it likes, and takes its number of threads, on which its result may depend, from the environment
in which it is loaded. So nothing of `bimangrasp` is imported here.
"""

import json
import sys
from pathlib import Path

import coacd
import numpy as np


def main(folder: Path) -> None:
    """Decomposes the mesh of a folder."""
    coacd.set_log_level("error")
    with np.load(folder / "mesh.npz", allow_pickle=False) as mesh:
        body = coacd.Mesh(mesh["vertices"], mesh["faces"])
    pieces = coacd.run_coacd(body, **json.loads((folder / "settings.json").read_text(encoding="utf-8")))
    np.savez(folder / "pieces.npz", **{f"vertices_{number}": vertices for number, (vertices, _) in enumerate(pieces)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
