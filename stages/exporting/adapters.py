"""Trained weights in the format of peft, for a method that has one and cannot be merged.

`PeftModel.from_pretrained(base, folder)` then gives the evaluated logits without this project.
Where peft computes something else, nothing is written: with vectors before a row its heads on
tokens have logits for these too, its heads of causal models on rows read the padding, and for
question answering it drops the types of tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.adaptation import is_causal
from stages.artifacts import write_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KINDS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}
"""peft's task types by the end of a class's name."""


def write(folder: Path, model: PreTrainedModel, method: Any, base: str) -> str | None:
    """Write adapter_config.json and adapter_model.safetensors.

    Args:
        model: trained, with the method's weights in place.
        base: repo or folder of the base, which peft fetches where it is given no model.

    Returns:
        The class that the base is to be loaded as, or None where nothing is written.
    """
    from safetensors.torch import save_file

    name = type(model).__name__
    kind = next((kind for end, kind in KINDS.items() if name.endswith(end)), None)
    if kind is None or not hasattr(method, "as_peft"):
        return None
    if (kind == "CAUSAL_LM") != is_causal(model):
        return None
    found = method.as_peft(model, kind)
    if found is None:
        return None
    settings, vectors = found
    head = _head(model, whole=kind != "CAUSAL_LM")
    modules = sorted({_module(name) for name in head})
    write_json(
        folder / CONFIG,
        {
            "base_model_name_or_path": base,
            "inference_mode": True,
            "modules_to_save": modules or None,
            "num_transformer_submodules": 1,
            "task_type": kind,
            **settings,
        },
    )
    tensors = {f"base_model.{name}": weight for name, weight in head.items()}
    tensors["prompt_embeddings"] = vectors
    cpu = {name: weight.detach().cpu().contiguous() for name, weight in tensors.items()}
    save_file(cpu, folder / WEIGHTS, metadata={"format": "pt"})
    return name


def _head(model: PreTrainedModel, *, whole: bool) -> dict[str, torch.Tensor]:
    """The trained weights, but for those that the method has put in the base itself.

    Args:
        whole: and the rest of the head, which peft wants even where the base has brought it.
    """
    base: Any = model.base_model
    own = {id(weight) for _, weight in base.named_parameters(recurse=False)}
    of_base = {id(weight) for weight in base.parameters()}
    return {
        name: weight
        for name, weight in model.named_parameters()
        if id(weight) not in own and (weight.requires_grad or (whole and id(weight) not in of_base))
    }


def _module(name: str) -> str:
    """The last part of the outermost module that a weight alone is trained with: `classifier` of
    classifier.dense.weight, `pooler` of bert.pooler.dense.weight."""
    parts = name.split(".")[:-1]
    return "pooler" if "pooler" in parts else parts[0]
