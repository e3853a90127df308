"""Makes and reads the images of shards, of verdicts and of rejected grasps. No pickle, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bimangrasp.files import header as headers
from bimangrasp.files import schema
from bimangrasp.files.header import VERDICT_FORMAT, VERSION, Header, RejectsEnding, as_json, text
from bimangrasp.files.images import image_of, opened, read_columns, refuse_unknown


def shard_image(header: Header, columns: schema.Columns) -> bytes:
    """Returns the bytes of the shard that holds these columns, `SHARD_FIELDS`; equal input gives equal bytes."""
    return image_of(headers.header_attributes(header), schema.SHARD_FIELDS, columns)


def read_shard(image: bytes) -> tuple[Header, dict[str, np.ndarray]]:
    """Returns header and columns of a shard's bytes; raises FormatError where they break the contract."""
    with opened(image, "shard") as file:
        header = headers.read_header(file, "a shard")
        refuse_unknown(file, schema.SHARD_FIELDS)
        columns = read_columns(file, schema.SHARD_FIELDS)
    _check_shard(header, columns)
    return header, columns


def _check_shard(header: Header, columns: schema.Columns) -> None:
    """Raises FormatError unless the columns are those of one whole round of these hands."""
    sizes = schema.sizes_of(columns)
    if sizes["J"] != len(header.hand.joint_names):
        raise schema.FormatError(f"{sizes['J']} joints in a shard whose hands have {len(header.hand.joint_names)}")
    if sizes["R"] != 1 or columns["rounds/rows"][0] != sizes["N"]:
        raise schema.FormatError(f"a shard holds one round with all its rows, this one has {sizes}")
    same = [(columns[name] == columns[f"rounds/{name}"][0]).all() for name in ("seed", "round")]
    if not all(same) or (columns["row"] != np.arange(sizes["N"])).any():
        raise schema.FormatError("seed, round and row of the grasps are not those of the shard's round")


def verdict_image(about: Mapping[str, Any], columns: schema.Columns) -> bytes:
    """Returns the bytes of the file that holds these verdicts; equal input gives equal bytes.

    Args:
        about: attributes: what was judged, and how; values that are no text or number become JSON.
        columns: `VERDICT_FIELDS`.
    """
    plain = {name: value if isinstance(value, str | int | float) else as_json(value) for name, value in about.items()}
    return image_of({"format": VERDICT_FORMAT, "format_version": VERSION} | plain, schema.VERDICT_FIELDS, columns)


def read_verdict(image: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns attributes and columns of a verdict's bytes; raises FormatError where they break the contract."""
    with opened(image, "verdict") as file:
        attributes = dict(file.attrs)
        if (text(attributes["format"]), attributes["format_version"]) != (VERDICT_FORMAT, VERSION):
            raise schema.FormatError(f"not a {VERDICT_FORMAT} file of version {VERSION}")
        refuse_unknown(file, schema.VERDICT_FIELDS)
        return attributes, read_columns(file, schema.VERDICT_FIELDS)


def rejects_image(header: Header, ending: RejectsEnding, columns: schema.Columns) -> bytes:
    """Returns the bytes of the file that holds rejected grasps; equal input gives equal bytes.

    Args:
        header: what the file says of itself.
        ending: what it says of its rows.
        columns: `reject_fields`.
    """
    fields = schema.reject_fields(ending.judging is not None)
    content = {"content_sha256": schema.content_sha256(columns, fields)}
    return image_of(headers.header_attributes(header) | headers.rejects_attributes(ending) | content, fields, columns)


def read_rejects(image: bytes) -> tuple[Header, RejectsEnding, dict[str, np.ndarray]]:
    """Returns header, ending and columns of the bytes of a file of rejected grasps.

    Raises:
        FormatError: it does not keep the contract or its own content_sha256.
    """
    with opened(image, "file of rejected grasps") as file:
        header, ending = headers.read_header(file, "a file of rejected grasps"), headers.read_rejects_ending(file)
        fields = schema.reject_fields(ending.judging is not None)
        refuse_unknown(file, fields)
        columns = read_columns(file, fields)
        if text(file.attrs["content_sha256"]) != schema.content_sha256(columns, fields):
            raise schema.FormatError("content_sha256 is not that of the columns")
    return header, ending, columns
