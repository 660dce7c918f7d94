"""How many tokens a row may have, by a base's config."""

from __future__ import annotations

from typing import Any

# Positions count from the padding token's number upwards (`padding_idx + 1` in transformers).
OFFSET_BY_PADDING = {
    *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke"),
    *("markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"),
    "xmod",
}
RELATIVE = {"bloom", "funnel", "longt5", "mpt", "mt5", "switch_transformers", "t5", "umt5", "xlnet"}


def limit(config: dict[str, Any]) -> int | None:
    """Number of tokens that the base has positions for; None: it sets no limit (relative
    positions), or states none."""
    kind = str(config.get("model_type"))
    no_absolute = config.get("position_biased_input") is False  # deberta
    count = config.get("max_position_embeddings", config.get("n_positions"))
    if kind in RELATIVE or no_absolute or not isinstance(count, int):
        return None
    if kind in OFFSET_BY_PADDING:
        padding = config.get("pad_token_id")
        count -= (padding if isinstance(padding, int) else 1) + 1
    return count if count > 0 else None
