"""Knows the parts of a run that is made on several machines: part i of n has the objects i - 1, i - 1 + n, ..."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bimangrasp.errors import InputError
from scale.formatting import listed
from scale.store.run_folder import RunFolder

MOST_PARTS = 10_000


class Part(NamedTuple):
    """One part of a run.

    Attributes:
        number: from 1 on.
        count: how many parts there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """The folder of the part, below that of the run."""
        return f"part_{self.number}_of_{self.count}"

    def all(self) -> list[Part]:
        """Returns all parts of the run."""
        return [Part(number, self.count) for number in range(1, self.count + 1)]

    def has(self, index: int) -> bool:
        """Whether the object with this index is of the part."""
        return index % self.count == self.number - 1


def parse_part(text: str) -> Part:
    """Returns the part that `part=` names.

    Raises:
        InputError: it is not i/n with i from 1 to n.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    part = Part(int(match[1]), int(match[2])) if match else Part(0, 0)
    if not 1 <= part.number <= part.count <= MOST_PARTS:
        raise InputError(
            f"part={text!r}: wanted i/n with i from 1 to n, n at most {MOST_PARTS}, such as part=1/8 to part=8/8"
        )
    return part


def parts_in(root: Path) -> dict[Part, RunFolder]:
    """Returns the parts that lie in the folder of a run, in order.

    Raises:
        InputError: the run was cut into another number of parts as well.
    """
    parts = {}
    for path in root.glob("part_*_of_*") if root.is_dir() else ():
        match = re.fullmatch(r"part_(\d+)_of_(\d+)", path.name)
        if match and path.is_dir():
            parts[Part(int(match[1]), int(match[2]))] = RunFolder(path)
    counts = sorted({part.count for part in parts})
    if len(counts) > 1:
        raise InputError(
            f"{root} has parts of {counts[0]} ({_names(parts, counts[0])}) and of {counts[1]} "
            f"({_names(parts, counts[1])}): wanted one number; remove those that are not meant, or use another exp_name"
        )
    return dict(sorted(parts.items()))


def folders_of(root: Path) -> dict[str, RunFolder]:
    """Returns the folders that hold a run: those of its parts by their names, or without parts itself, as ""."""
    return {str(part): folder for part, folder in parts_in(root).items()} or {"": RunFolder(root)}


def _names(parts: Iterable[Part], count: int) -> str:
    """Returns the folders of the parts of a number."""
    return listed([part.name for part in sorted(parts) if part.count == count])


def check_siblings(root: Path, part: Part, codes: Sequence[str]) -> None:
    """Refuses a part that does not fit those that lie beside it.

    Args:
        root: the folder of the run.
        part: of this call.
        codes: all objects of the run, in order. New ones may have come behind those of earlier calls.

    Raises:
        InputError: a run without parts, parts of another number, or of another list of objects.
    """
    refuse_whole_run(root, f"part={part}")
    parts = parts_in(root)
    others = {other.count for other in parts} - {part.count}
    if others:
        raise InputError(
            f"part={part}, but {root} is cut into {others.pop()} parts ({listed([other.name for other in parts])}): go "
            "on with that number, or choose another exp_name"
        )
    for other, folder in parts.items():
        known = listed_codes(folder)
        for index, (ours, theirs) in enumerate(zip(codes, known, strict=False)):
            if ours != theirs:
                raise InputError(
                    f"object {index} is {ours!r} in this call and {theirs!r} in {other.name}: all parts want one list "
                    "in one order, to which new objects are appended; give object_code_list as it was, or choose "
                    "another exp_name"
                )


def listed_codes(folder: RunFolder) -> list[str]:
    """Returns the objects of the whole run, as a part was given them; none where it has not begun."""
    try:
        return json.loads(folder.objects.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InputError(f"{folder.objects} is damaged ({error}): the part's own command writes it anew") from error


def write_codes(folder: RunFolder, codes: Sequence[str]) -> None:
    """Keeps the list of all objects beside a part, the longer of the earlier one and this."""
    if len(codes) > len(listed_codes(folder)):
        folder.write(folder.objects, json.dumps(list(codes), ensure_ascii=False).encode() + b"\n")


def refuse_whole_run(root: Path, given: str) -> None:
    """Refuses a folder whose files are those of a run without parts; `given` is what does not go with it."""
    folder = RunFolder(root)
    if not folder.merged.exists() and (folder.journal.exists() or folder.final_files() or any(folder.shard_files())):
        raise InputError(f"{given}, but {root} is a run without parts: choose another exp_name, or leave part= away")


def refuse_parts(root: Path) -> None:
    """Refuses to make grasps in the folder of a run with parts itself."""
    parts = parts_in(root)
    if parts or RunFolder(root).merged.exists():
        names = listed([str(part) for part in parts]) or "none is left"
        raise InputError(
            f"{root} is a run of parts ({names}), which are made each by its own command: give part=, or choose "
            "another exp_name; mode=merge joins them"
        )
