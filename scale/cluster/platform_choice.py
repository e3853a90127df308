"""Decides which platform counts in a run over many nodes: the run folder's, else that of the most slots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bimangrasp.errors import InputError

Platform = dict[str, str]


class PlatformChoice:
    """The platform of one role in a call; processes that are ready before it is decided wait.

    Attributes:
        chosen: None as long as it is not decided.
    """

    def __init__(self, known: Sequence[Platform], allow_mixed: bool) -> None:
        self.chosen: Platform | None = known[0] if known else None
        self._allow_mixed = allow_mixed

    def decide(self, waiting: dict[int, Platform], where: dict[int, str]) -> None:
        """Chooses the platform that most of the waiting slots have.

        Args:
            waiting: slot -> its platform.
            where: slot -> its device, for people.

        Raises:
            InputError: as many slots have another one.
        """
        groups = [[slot for slot in waiting if waiting[slot] == platform] for platform in _distinct(waiting.values())]
        groups.sort(key=len, reverse=True)
        if len(groups) > 1 and len(groups[0]) == len(groups[1]):
            first, second = (sorted(where[slot] for slot in group) for group in groups[:2])
            differing = _differences(waiting[groups[0][0]], waiting[groups[1][0]])
            raise InputError(
                f"as many processes are on one platform ({', '.join(first)}) as on another ({', '.join(second)}), and "
                f"equal bytes hold for one only: {differing}: leave out the nodes of one of them, or set "
                f"allow_mixed_platform=true"
            )
        self.chosen = waiting[groups[0][0]]

    def refusal(self, platform: Platform) -> str:
        """Returns why a process on this platform must not work; empty where it may."""
        if self._allow_mixed or platform == self.chosen:
            return ""
        return f"it is on another platform than the run: {_differences(self.chosen, platform)}"

    @property
    def is_decided(self) -> bool:
        """Whether it is known who may work."""
        return self._allow_mixed or self.chosen is not None


def _distinct(platforms: Iterable[Platform]) -> list[Platform]:
    """Returns the platforms without repetition, in order."""
    return list({tuple(sorted(platform.items())): platform for platform in platforms}.values())


def _differences(first: Platform, second: Platform) -> str:
    """Returns in which facts two platforms differ, with the values of both."""
    names = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    return ", ".join(f"{name} {first.get(name, 'none')} against {second.get(name, 'none')}" for name in names)
