"""What a folder must hold to serve as the base: the files taken, and what is wrong with them.

Nothing is loaded but headers; `convert` alone loads weights, those that are pickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.errors import UserError

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"  # of sharded weights, behind the name of the whole
OPTIONAL = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
SLOW_TOKENIZERS = OPTIONAL[OPTIONAL.index("vocab.txt") :]
CARD = "README.md"  # read for its licence, not taken
SMALL = (CONFIG, TOKENIZER, *OPTIONAL, CARD)
SAFE = (*SMALL, WEIGHTS, WEIGHTS + INDEX, "model-*.safetensors")  # patterns: what to download
PICKLES = (PICKLE, PICKLE + INDEX, "pytorch_model-*.bin")  # and of a repo without safetensors


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no file or no object in it."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def weights(folder: Path, allow_pickle: bool) -> list[str]:
    """Names of the files that hold the weights, in the order that transformers prefers:
    safetensors, sharded safetensors, then pickles where allowed. Listed shards may be absent."""
    for whole in (WEIGHTS, PICKLE) if allow_pickle else (WEIGHTS,):
        if (folder / whole).is_file():
            return [whole]
        if (folder / (whole + INDEX)).is_file():
            return [whole + INDEX, *sorted(set(_weight_map(folder / (whole + INDEX)).values()))]
    return []


def files(folder: Path, allow_pickle: bool) -> list[str]:
    """Names of the files to take, sorted."""
    present = [name for name in OPTIONAL if (folder / name).is_file()]
    return sorted([CONFIG, TOKENIZER, *present, *weights(folder, allow_pickle)])


def problems(
    folder: Path, place: str, allow_pickle: bool, elsewhere: Iterable[str] = ()
) -> list[str]:
    """What keeps `folder` from serving as the base.

    Args:
        place: the user's word for the folder.
        elsewhere: files that the model's repo has as well; they only serve the advice.
    """
    found = _absent(folder, allow_pickle, elsewhere)
    for name in files(folder, allow_pickle):
        if Path(name).name != name:
            found.append(f"{name}: listed as a shard, but not a plain file name; do not trust it")
        elif (folder / name).is_file():
            found += _damage(folder / name)
        elif name not in (CONFIG, TOKENIZER):
            found.append(f"{name}: missing, though the index lists it; get this shard too")
    return [f"{place}: {problem}" for problem in found + _foreign(folder)]


def pickled(names: list[str]) -> bool:
    """Whether the weights among `files` are pickles."""
    return not {WEIGHTS, WEIGHTS + INDEX}.intersection(names)


def convert(folder: Path, place: str) -> list[str]:
    """Turn the pickled weights in `folder` into `model.safetensors`; returns the names of the
    pickles, which are removed.

    Unpickles with torch's allow-list (`weights_only`), never arbitrary objects.

    Raises:
        UserError: a pickle is damaged, or holds anything but tensors by name.
    """
    import torch
    from safetensors.torch import save_file

    names = weights(folder, allow_pickle=True)
    tensors: dict[str, torch.Tensor] = {}
    for name in (name for name in names if not name.endswith(INDEX)):
        try:
            content = torch.load(folder / name, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever unpickling raises, the file is at fault
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"{place}: {name}: cannot be unpickled safely ({reason}); use safetensors"
            ) from error
        if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
            raise UserError(f"{place}: {name}: not a dictionary of tensors; use safetensors")
        # Tensors may share memory, which safetensors refuses; popping keeps the peak low.
        tensors |= {key: content.pop(key).contiguous().clone() for key in list(content)}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for name in names:
        (folder / name).unlink()
    return names


def licence(card: Path) -> str | None:
    """`license` in the front matter of a model card, or None."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        _, front, _ = card.read_text(encoding="utf-8").split("---\n", 2)
        content = YAML(typ="safe", pure=True).load(front)
    except (OSError, ValueError, YAMLError):
        return None
    found = content.get("license") if isinstance(content, dict) else None
    if found == "other":  # the hub's word where the licence has a name of its own
        found = content.get("license_name") or found
    names = found if isinstance(found, list) else [found]
    return ", ".join(str(name) for name in names if name) or None


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor to shard; empty where the index is damaged (`_damage` says so)."""
    listed = (read_object(index) or {}).get("weight_map")
    entries = listed.items() if isinstance(listed, dict) else ()
    return {str(tensor): str(shard) for tensor, shard in entries}


def _absent(folder: Path, allow_pickle: bool, elsewhere: Iterable[str]) -> list[str]:
    """What is not there at all, with what to do about it."""
    found, names = [], {file.name for file in folder.iterdir() if file.is_file()}
    if CONFIG not in names:
        adapter = ", this is a peft adapter" if "adapter_config.json" in names else ""
        found.append(f"{CONFIG}: missing{adapter}; take a whole model, with its {CONFIG}")
    if TOKENIZER not in names:
        slow = sorted(names.intersection(SLOW_TOKENIZERS))
        command = (
            "from transformers import AutoTokenizer as T; "
            "T.from_pretrained('MODEL').save_pretrained('FOLDER')"
        )
        found.append(
            f"{TOKENIZER}: missing"
            + (f", only a slow tokenizer is there ({', '.join(slow)})" if slow else "")
            + f'; make it with `python -c "{command}"`, MODEL being the model\'s folder or repo, '
            "put it beside the weights, and set fetch_model.source: folder"
        )
    if not weights(folder, allow_pickle):
        found.append(_no_weights(names.union(elsewhere)))
    return found


def _no_weights(names: set[str]) -> str:
    if names & {PICKLE, PICKLE + INDEX}:
        return (
            f"{WEIGHTS}: missing, the weights are pickled ({PICKLE}), and loading a pickle can run "
            "any code of whoever made it; use a revision with safetensors, or, if you trust its "
            "maker, set fetch_model.allow_pickle: true"
        )
    endings = (".safetensors", ".bin", ".h5", ".msgpack", ".gguf", ".onnx", ".ckpt", ".pt", ".pth")
    other = sorted(name for name in names - {WEIGHTS} if name.endswith(endings))
    return (
        f"{WEIGHTS}: missing"
        + (f", there are only {', '.join(other[:5])}" if other else "")
        + f"; add {WEIGHTS}, or {WEIGHTS}{INDEX} with all its shards"
    )


def _damage(file: Path) -> list[str]:
    """Why the file's content cannot be what its name says; a line or none."""
    with open(file, "rb") as handle:
        if handle.read(42).startswith(b"version https://git-lfs.github.com/spec/"):
            return [f"{file.name}: a Git LFS pointer, not the content; run `git lfs pull` there"]
    if file.suffix == ".json" and read_object(file) is None:
        return [f"{file.name}: damaged (no JSON object); get it again"]
    if file.name.endswith(INDEX) and not _weight_map(file):
        return [f"{file.name}: lists no shards (no weight_map); get it again"]
    return _damaged_tensors(file) if file.suffix == ".safetensors" else []


def _damaged_tensors(file: Path) -> list[str]:
    """safetensors checks that header and size agree, so a file cut short is found as well."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as handle:
            held = set(handle.keys())
    except (SafetensorError, OSError) as error:
        return [f"{file.name}: damaged or cut short ({error}); get it again"]
    listed = _weight_map(file.with_name(WEIGHTS + INDEX)) if file.name != WEIGHTS else {}
    absent = sorted(key for key, shard in listed.items() if shard == file.name and key not in held)
    if absent:
        return [
            f"{file.name}: lacks {len(absent)} tensors that the index lists ({absent[0]}, ...); "
            "get shards and index of one revision"
        ]
    return [] if held else [f"{file.name}: holds no tensors; get it again"]


def _foreign(folder: Path) -> list[str]:
    """Models whose architecture transformers does not bring: they would need code of theirs."""
    config = read_object(folder / CONFIG)
    if config is None:  # absent or damaged: said elsewhere
        return []
    kind = config.get("model_type")
    if "auto_map" in config:
        # Takes seconds to import, so it is left for the models that may need it.
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if str(kind) not in CONFIG_MAPPING_NAMES:
            return [
                f"{CONFIG}: model_type {kind!r} needs code that comes with the model (auto_map), "
                "which is never run; use a model that transformers knows by itself"
            ]
    if not isinstance(kind, str):
        return [f"{CONFIG}: model_type missing, got {kind!r}; write the architecture, such as bert"]
    return []
