"""An exported folder in use: texts to logits by plain transformers, nothing else of the project.

The folder says all that is needed: `id2label`, `finetuning_task`, `finetuning_texts` (the roles of
text that it reads), `finetuning_learnt` (see stages/tasks/base.py) and `finetuning_stride` (tokens
that windows of a long text share) in config.json, `model_max_length` in tokenizer_config.json.

Where a method's weights cannot be merged into the base's, the folder holds them alone, in
method.safetensors, and method.json names method and base; then the method puts them in place, and
the base must lie in data/base.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import plugins
from stages.artifacts import read_json, sha256, write_json
from stages.common import chat, prompts
from stages.errors import UserError
from stages.params import Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

METHOD, WEIGHTS = "method.json", "method.safetensors"
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
OWN = "finetuning_"  # how names in config.json begin that transformers does not know
NEEDED = {
    CONFIG: ("finetuning_task", "finetuning_texts", "finetuning_learnt", "finetuning_stride"),
    TOKENIZER: ("model_max_length",),
}


@dataclass(frozen=True)
class Exported:
    """A loaded model; `labels` in the order of its outputs."""

    folder: Path
    task: str
    texts: list[str]
    labels: list[str]
    learnt: dict[str, list[float]]
    max_length: int
    stride: int
    model: Any
    tokenizer: Any
    device: str

    def logits(self, texts: Sequence[Sequence[str]]) -> tuple[list[np.ndarray], list[bool]]:
        """Logits of each text in float32, [k] or of a head on tokens [tokens, k]; and whether each
        text was cut to `max_length` tokens.

        Args:
            texts: normalised, [n] of one string for each of the roles `self.texts`.
        """
        import torch

        inputs = [text[0] if len(text) == 1 else tuple(text) for text in texts]
        encoded = self.tokenizer(
            inputs,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        wanted = ["input_ids", "attention_mask"]
        if getattr(self.model.config, "type_vocab_size", 0) > 1 and "token_type_ids" in encoded:
            wanted.append("token_type_ids")
        with torch.inference_mode():
            found = self.model(**{name: encoded[name].to(self.device) for name in wanted})
        logits = (
            found.logits
            if "logits" in found
            else torch.stack([found.start_logits, found.end_logits], dim=-1)
        )
        values = logits.float().cpu().numpy()
        mask = encoded["attention_mask"].bool().numpy()
        rows = (
            [*values] if values.ndim == 2 else [of[m] for of, m in zip(values, mask, strict=True)]
        )
        return rows, [bool(encoding.overflowing) for encoding in encoded.encodings]

    @cached_property
    def speech(self) -> dict[str, Any]:
        """How the model is spoken to; see `stages.common.chat.of_base`."""
        return chat.of_base(self.folder)

    def refusal(self, messages: str) -> str:
        """Why the chat template does not take a conversation in JSON; empty where it does."""
        template = prompts.template_of("auto", self.speech)
        try:
            chat.render(template, json.loads(messages), self.speech, prompting=True)
        except chat.TemplateRefusedError as error:
            return error.reason
        return ""

    def examples(self, rows: pd.DataFrame) -> prompts.Examples:
        """Of a model that writes texts: prompts with their responses.

        Args:
            rows: as `stages.common.prompts.make` takes them.
        """
        template = prompts.template_of("auto", self.speech)
        tokenizer = self.tokenizer.backend_tokenizer
        return prompts.make(tokenizer, rows, self.max_length, template, self.speech)

    def nats(self, rows: pd.DataFrame) -> list[np.ndarray]:
        """Of a model that writes texts: for each row's tokens [tokens] minus the logarithm of the
        probability of the next one, where it belongs to the response; else 0."""
        import torch

        found = []
        examples = self.examples(rows)
        for start, end in pairwise(examples.offsets):
            ids, goal = (
                torch.from_numpy(of[start:end]).long().to(self.device)
                for of in (examples.ids, examples.goal)
            )
            with torch.inference_mode():
                logits = self.model(input_ids=ids[None]).logits[0].float()
                losses = torch.nn.functional.cross_entropy(
                    logits, goal, ignore_index=prompts.NO_GOAL, reduction="none"
                )
            found.append(losses.cpu().numpy())
        return found


def load(folder: str | Path) -> Exported:
    """The model in `folder`, on the GPU where there is one.

    Raises:
        UserError: there is no such folder, or it is not what `export` writes.
    """
    place = Path(folder)
    contents = _contents(place)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see stages/training/machine.py
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = contents[CONFIG]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    own = (place / METHOD).exists()
    model: Any = _with_base(place, config) if own else None
    try:
        if not own:
            architecture = getattr(transformers, config["architectures"][0])
            model = architecture.from_pretrained(place, local_files_only=True, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:  # whatever transformers raises, the files are at fault
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{place}: transformers cannot load it ({reason}); run `dvc repro --force export`"
        ) from error
    names = config.get("id2label", {})  # a head on spans has no names
    return Exported(
        folder=place,
        task=config["finetuning_task"],
        texts=config["finetuning_texts"],
        labels=[names[str(number)] for number in range(len(names))],
        learnt=config["finetuning_learnt"],
        max_length=contents[TOKENIZER]["model_max_length"],
        stride=config["finetuning_stride"],
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        device=device,
    )


def write_own(folder: Path, finetuned: Path, base: dict[str, Any]) -> None:
    """Write method.json and method.safetensors.

    Args:
        finetuned: the folder that `finetune` writes.
        base: results/base.json.
    """
    shutil.copyfile(finetuned / "model.safetensors", folder / WEIGHTS)
    write_json(folder / METHOD, read_json(finetuned / "finetuned.json") | {"base": base})


def _with_base(place: Path, config: dict[str, Any]) -> Any:
    """The base in data/base with the folder's weights in place.

    Args:
        config: the folder's, whose entries of this project the model's gets.

    Raises:
        UserError: it is another base, or none.
    """
    from safetensors.torch import load_file

    from stages.training import weights

    about = read_json(place / METHOD)
    for name, facts in about["base"]["files"].items():
        file = weights.BASE / name
        if not file.exists() or sha256(file) != facts["sha256"]:
            raise UserError(
                f"{file}: missing, or not the base that {place} was trained on, "
                f"{about['base']['name']} with SHA-256 {facts['sha256']}; name it in params.yaml, "
                "fetch_model, and run `dvc repro fetch_model`"
            )
    task, method = plugins.load("tasks", about["task"]), plugins.load("methods", about["method"])
    run = Run(about["task"], about["method"], task, method, None, None, None)
    model = weights.assemble(run, about, load_file(place / WEIGHTS), place)
    for name, value in config.items():
        if name.startswith(OWN):
            setattr(model.config, name, value)
    return model


def _contents(place: Path) -> dict[str, Any]:
    """The files of settings, once all that is needed is found in them."""
    if not place.is_dir():
        raise UserError(
            f"{place}: no such folder; run `dvc repro` to make models/export, or name another "
            "folder with --model"
        )
    contents, found = {}, []
    for name, keys in NEEDED.items():
        try:
            contents[name] = json.loads((place / name).read_bytes())
        except (OSError, ValueError):
            found.append(f"{place / name}: missing or no JSON; run `dvc repro` to make it anew")
            continue
        known = contents[name] if isinstance(contents[name], dict) else {}
        found += [
            f"{place / name}: {key}: missing; take a folder that `python -m stages export` wrote"
            for key in keys
            if key not in known
        ]
    if found:
        raise UserError(*found)
    return contents
