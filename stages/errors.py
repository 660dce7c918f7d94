"""The one exception that stands for a user's mistake, and the texts that messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One or more problems that the user can mend.

    Each problem is one line: where, what is wrong, the value found, what to write instead.
    `python -m stages` prints all of them and exits with code 2, without a traceback.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class UnsuitedError(UserError):
    """A method that cannot be used with the base; `reason` says why."""

    def __init__(self, reason: str, advice: str, method: str = "") -> None:
        got = f", got {method!r}" if method else ""
        super().__init__(f"params.yaml: run.method: {reason}{got}; {advice}")
        self.reason = reason


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of what is known where nothing comes close."""
    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"write one of: {', '.join(names)}" if names else "nothing is known here; remove it"
