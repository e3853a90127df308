"""Writes and checks dataset.h5, one file with a link to each final file."""

from __future__ import annotations

import io
from pathlib import Path

import h5py

from bimangrasp.files.schema import FormatError
from scale.store.run_folder import RunFolder


def dataset_image(links: dict[str, str]) -> bytes:
    """Returns the bytes of a file with a link for each object.

    Args:
        links: name of the group -> final file, relative to the folder of the file that holds the links.
    """
    with h5py.File("dataset", "w", driver="core", backing_store=False, libver="earliest") as file:
        for name, target in sorted(links.items()):
            file[name] = h5py.ExternalLink(target, "/")
        file.flush()
        return file.id.get_file_image()


def check_dataset(path: Path) -> None:
    """Raises FormatError unless a file holds links to final files and nothing else."""
    try:
        with h5py.File(io.BytesIO(path.read_bytes()), "r") as file:
            links = [file.get(name, getlink=True) for name in file]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise FormatError(f"not a readable file of links: {error}") from error
    if any(not isinstance(link, h5py.ExternalLink) or link.path != "/" for link in links):
        raise FormatError("it holds more than links to final files")


def write_dataset(folder: RunFolder) -> None:
    """Writes `dataset.h5`, which opens every final file that is there; nothing where it already does."""
    image = dataset_image({path.stem: folder.relative(path) for path in folder.final_files()})
    if not folder.dataset.exists() or folder.dataset.read_bytes() != image:
        folder.write(folder.dataset, image)
