"""Everything that can be refused before it costs, and what `dvc repro` would run.

Run: `python -m stages check`. It writes nothing, loads no torch, uses no network, and names all
problems at once.
"""

from __future__ import annotations

import importlib
import math
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import (
    check,
    fetch_model,
    pins,
    plan,
    positions,
    prepare,
    space,
    tokenize,
    windows,
)
from stages.base import files as base_files
from stages.common import chat, prompts
from stages.common.texts import present
from stages.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 80
SAMPLE = 1000  # rows whose tokens are counted
REASONS = 5  # of a stage that are told
TOKENS = 64  # of a row, where they cannot be counted


@dataclass
class Found:
    """What the checks learnt, and what they refuse."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def fact(self, name: str, text: str) -> None:
        self.facts.append((name, text))

    def collect(self, check: Callable[..., Any], *arguments: Any) -> Any:
        """What the check returns; None, and its problems noted, where it refuses."""
        try:
            return check(*arguments)
        except UserError as error:
            self.problems += error.problems
            return None


def main(arguments: list[str]) -> int:
    """Print what was found and what would run.

    Raises:
        UserError: with all problems.
    """
    if arguments:
        raise UserError(f"python -m stages check: takes no argument, got {arguments[0]!r}")
    found = Found()
    params, found.problems = check.examine()
    valid = not found.problems
    if valid:
        run = params.run
        found.fact("parameters", f"valid: {run.task_name} by {run.method_name}")
    rows = _data(params, found)
    tokens = _base(params, rows, found)
    found.collect(_libraries, params, found)
    steps = found.collect(plan.plan, check.read(Path("params.yaml"))) if valid else None
    if steps is not None:
        _space(steps, params, rows, tokens, found)
    for name, text in found.facts:
        print(*_wrapped(f"{name:<12}", text), sep="\n")
    if steps is not None:
        print("", *_told(steps), sep="\n")
    if found.problems:
        raise UserError(*found.problems)
    return 0


def _data(params: check.Params, found: Found) -> pd.DataFrame | None:
    """The rows that `prepare` would keep."""
    section, run = params.sections["prepare"], params.run
    if not (section and run.task and run.task_params):
        found.fact("data", "not read, for the parameters that say how are not valid")
        return None
    inspected = found.collect(prepare.inspect, section, run)
    if inspected is None:
        return None
    kept, _, labels, profile = inspected
    rows = profile["rows"]
    found.fact(
        "data",
        f"{section.path}: {rows['read']:,} rows, {rows['kept']:,} kept, "
        f"{rows['rejected']:,} rejected" + (f"; {len(labels)} labels" if labels else ""),
    )
    for reason, count in profile["rejected"].items():
        found.fact("", f"rejected as {reason}: {count:,}")
    sizes = [f"{name} {part['rows']:,}" for name, part in profile["splits"].items()]
    found.fact("", f"splits: {', '.join(sizes)}")
    for note in profile["notes"]:
        found.fact("", note)
    return kept


def _base(params: check.Params, rows: pd.DataFrame | None, found: Found) -> float:
    """Check the base and its tokenizer; the mean number of tokens of a row."""
    section = params.sections["fetch_model"]
    if not section:
        found.fact("base", "not looked for, for the section fetch_model is not valid")
        return TOKENS
    refused = fetch_model.problems(section)
    found.problems += refused
    folder = fetch_model.local_folder(section)
    if folder is None:
        if not refused:
            found.fact("base", f"{section.repo}: on the hub, not looked at before it is fetched")
        return TOKENS
    if refused:
        return TOKENS
    size = _bytes(folder, section.allow_pickle)
    pinned = len(section.sha256)
    named = section.package if section.source == "package" else section.repo
    found.fact(
        "base",
        f"{section.folder if section.source == 'folder' else named}: {space.megabytes(size)}, "
        + (f"{pinned} pinned hash{'es' * (pinned > 1)} right" if pinned else "no hash pinned"),
    )
    task = params.run.task
    generative = task is not None and task.GENERATIVE
    tokenizer = _tokenizer(folder, found, generative)
    if generative:
        about = chat.of_base(folder)
        found.collect(tokenize.refuse_encoders, about, params.run.task_name)
    if tokenizer is None or rows is None or found.problems:
        return TOKENS
    if generative:
        return _spoken(tokenizer, about, rows, params, found)
    room = positions.limit(base_files.read_object(folder / base_files.CONFIG) or {})
    return _lengths(tokenizer, rows, params, room, found)


def _tokenizer(folder: Path, found: Found, generative: bool) -> Any:
    try:
        tokenizer = tokenize.load_tokenizer(folder / base_files.TOKENIZER)
    except Exception as error:  # the library raises no class of its own
        reason = " ".join(str(error).split())[:100]
        found.problems.append(
            f"{base_files.TOKENIZER} of the base: not a tokenizer ({reason}); get it again"
        )
        return None
    found.problems += special_tokens(folder, tokenizer, padded=not generative)
    return tokenizer


def special_tokens(folder: Path, tokenizer: Any, padded: bool = True) -> list[str]:
    """What is wrong with the tokens that pad a text and end it, and with the number of all.

    Args:
        padded: must the base name a token that pads?
    """
    config = base_files.read_object(folder / base_files.CONFIG) or {}
    named: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        named |= base_files.read_object(folder / name) or {}
    found = []
    for role in ("pad_token", "sep_token", "eos_token"):
        token = named.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None and tokenizer.token_to_id(str(token)) is None:
            found.append(
                f"tokenizer_config.json: {role}: not in the vocabulary of tokenizer.json, got "
                f"{token!r}; get both files from one revision of the base"
            )
    known = [config.get("pad_token_id"), named.get("pad_token"), tokenizer.token_to_id("[PAD]")]
    if padded and all(value is None for value in known):
        found.append(
            "config.json: pad_token_id: missing, and the tokenizer names no pad_token; texts of "
            "different length cannot stand in one batch: write the number of its end token there"
        )
    size = config.get("vocab_size")
    if isinstance(size, int) and tokenizer.get_vocab_size() > size:
        found.append(
            f"tokenizer.json: has {tokenizer.get_vocab_size()} tokens, but config.json's "
            f"vocab_size is {size}; get both files from one revision of the base"
        )
    return found


def _lengths(
    tokenizer: Any, rows: pd.DataFrame, params: check.Params, room: int | None, found: Found
) -> float:
    """Refuse what `tokenize` would refuse, as far as a sample of the rows can show it.

    Args:
        room: tokens that the base has positions for, at most; None: no limit.
    """
    import numpy as np

    section = params.sections["tokenize"]
    roles = present(params.run.task.TEXTS, rows.columns)
    lengths: list[int] = []
    for split, of_split in rows.groupby("split", sort=False):
        share = max(1, SAMPLE * len(of_split) // len(rows))
        chosen = np.linspace(0, len(of_split) - 1, min(share, len(of_split))).astype(int)
        texts = of_split.iloc[chosen][roles].to_numpy().tolist()
        ids = tokenize.ids_of(tokenizer, texts)
        sizes = sorted(map(len, ids))
        lengths += sizes
        if section and params.run.task.WINDOWED:
            found.collect(windows.make, tokenizer, texts, section.max_length, section.stride)
        elif section:
            found.problems += truncation(sizes, f"{split} rows", len(of_split), section, room)
    if section:
        cut = sum(size > section.max_length for size in lengths)
        found.fact(
            "tokens",
            f"{cut:,} of {len(lengths):,} rows{' sampled' * (len(lengths) < len(rows))} are longer "
            f"than {section.max_length} tokens; the longest has {max(lengths):,}",
        )
    return sum(lengths) / len(lengths)


def _spoken(
    tokenizer: Any, about: dict[str, Any], rows: pd.DataFrame, params: check.Params, found: Found
) -> float:
    """`_lengths` of prompts with their responses."""
    import numpy as np

    section = params.sections["tokenize"]
    template = prompts.template_of(section.chat_template if section else "auto", about)
    longest = section.max_length if section else sys.maxsize
    lengths: list[int] = []
    for split, of_split in rows.groupby("split", sort=False):
        share = max(1, SAMPLE * len(of_split) // len(rows))
        chosen = np.linspace(0, len(of_split) - 1, min(share, len(of_split))).astype(int)
        made = found.collect(
            prompts.make, tokenizer, of_split.iloc[chosen], longest, template, about
        )
        if made is None:
            return TOKENS
        sizes = sorted(made.full.tolist())
        lengths += sizes
        if section:
            found.problems += truncation(sizes, f"{split} rows", len(of_split), section)
    found.fact("tokens", f"{len(lengths):,} rows looked at; the longest has {max(lengths):,}")
    return sum(lengths) / len(lengths)


def truncation(
    sizes: list[int], what: str, rows: int, params: tokenize.Tokenize, room: int | None = None
) -> list[str]:
    """A line where too many rows are longer than the model will read.

    Args:
        sizes: tokens of the rows looked at, sorted.
        rows: that there are.
        room: tokens that the base has positions for, at most; None: not known, or no limit.
    """
    share = sum(size > params.max_length for size in sizes) / len(sizes)
    exact = len(sizes) == rows
    if (share if exact else lower_bound(share, len(sizes))) <= params.max_truncated:
        return []
    most = sizes[math.ceil(0.99 * (len(sizes) - 1))]
    what = f"{'the' if exact else 'a sample of'} {len(sizes)} {what}"
    return [tokenize.too_long(what, share, params.max_length, most, sizes[-1], room)]


def lower_bound(share: float, of: int) -> float:
    """Of the 95% interval of a share in a sample (Wilson, "Probable inference", 1927), so that a
    sample refuses nothing that the whole might allow."""
    z = 1.96
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (share + z * z / (2 * of) - spread) / (1 + z * z / of)


def _libraries(params: check.Params, found: Found) -> None:
    method = params.run.method
    libraries = {
        name
        for stage in check.STAGES
        for name in importlib.import_module(f"stages.{stage}").LIBRARIES
    }
    libraries |= set(method.LIBRARIES if method else ())
    pins.require(sorted(libraries), params.run.method_name)
    found.fact("libraries", f"the {len(libraries)} that shape results are installed as pinned")


def _space(
    steps: list[plan.Step],
    params: check.Params,
    rows: pd.DataFrame | None,
    tokens: float,
    found: Found,
) -> None:
    section = params.sections["fetch_model"]
    folder = fetch_model.local_folder(section)
    if folder is None:  # to be fetched from the hub
        return
    raw = _folder_bytes(Path(params.sections["prepare"].path))
    count = 0 if rows is None else len(rows)
    sizes = space.estimate(_bytes(folder, section.allow_pickle), raw, int(tokens * count))
    need = sum(sizes.get(step.stage, 0) for step in steps if step.state != "not run")
    found.problems += space.problems(need)
    for size, free in space.places(need).values():
        told = f"at most {space.megabytes(size)} are written, copies in DVC's cache included; "
        found.fact("disk", f"{told}{space.megabytes(free)} are free")


def _bytes(folder: Path, allow_pickle: bool) -> int:
    """Size of the files that `fetch_model` takes."""
    names = base_files.files(folder, allow_pickle)
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file())


def _folder_bytes(path: Path) -> int:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _told(steps: list[plan.Step]) -> Iterator[str]:
    """Each stage, what `dvc repro` would do with it, and why."""
    size = max(len(step.stage) for step in steps)
    for step in steps:
        yield from _wrapped(f"{step.stage:<{size}}  {step.state:<8}", _reasons(step))
    states = {step.state for step in steps}
    if states == {"not run"}:
        yield "Nothing to do: dvc.lock describes all that is here."
        return
    if "run" in states:
        yield "run: unless DVC's cache holds the result for the same inputs, and restores it."
    if "may run" in states:
        yield "may run: if what is above it gives other bytes than before."


def _reasons(step: plan.Step) -> str:
    more = len(step.reasons) - REASONS
    return "; ".join(step.reasons[:REASONS]) + (f"; and {more} more" if more > 0 else "")


def _wrapped(head: str, text: str) -> list[str]:
    indent = " " * (len(head) + 2)
    lines = textwrap.wrap(
        text, WIDTH - len(indent), break_on_hyphens=False, break_long_words=True
    ) or [""]
    return [f"{head}  {lines[0]}".rstrip(), *(indent + line for line in lines[1:])]
