"""Which settings a search tries: a grid, random draws, or rounds that learn (TPE).

Every choice is a function of the section `sweep` and, for TPE, of the outcomes of earlier rounds,
so a search that was killed plans the same again, and a longer one begins with the shorter.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from stages.sweep import Range, Sweep

Setting = dict[str, Any]
"""Dotted key to value."""


def rounds(section: Sweep) -> int:
    """How often settings are planned; only TPE has to wait for outcomes."""
    return section.rounds if section.strategy == "tpe" else 1


def plan(
    section: Sweep, number: int, past: Sequence[tuple[Setting, float | None]]
) -> list[Setting]:
    """The settings of a round.

    Args:
        number: of the round, from 0.
        past: the settings of earlier rounds in order, with their outcome; higher is better.
    """
    if section.strategy == "grid":
        lists = [values for values in section.parameters.values() if isinstance(values, list)]
        return [
            dict(zip(section.parameters, values, strict=True))
            for values in itertools.product(*lists)
        ]
    if section.strategy == "random":
        return [_drawn(section, index) for index in range(section.rounds * section.trials)]
    return _suggested(section, number, past)


def trials(section: Sweep, settings: Sequence[Setting]) -> dict[str, Setting]:
    """Each setting with each seed, by a name that follows from the content alone."""
    found = [setting | {"finetune.seed": seed} for setting in settings for seed in section.seeds]
    return {name(one): one for one in found}


def name(overrides: Setting) -> str:
    """Letters and digits, so that it is a name for DVC and for files."""
    text = json.dumps(overrides, sort_keys=True)
    return "t" + hashlib.sha256(text.encode()).hexdigest()[:10]


def _drawn(section: Sweep, index: int) -> Setting:
    generator = np.random.default_rng([section.seed, index])
    return {key: _value(values, generator) for key, values in section.parameters.items()}


def _value(values: list[Any] | Range, generator: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[int(generator.integers(len(values)))]
    if values.whole and not values.log:
        return int(generator.integers(int(values.low), int(values.high) + 1))
    ends = (values.low, values.high)
    low, high = np.log(ends) if values.log else ends
    value = float(generator.uniform(low, high))
    return _tidy(float(np.exp(value)) if values.log else value, values)


def _tidy(value: float, within: Range) -> float | int:
    """Four digits are enough, and are the same in every file."""
    if within.whole:
        return int(min(max(round(value), within.low), within.high))
    return min(max(float(f"{value:.4g}"), within.low), within.high)


def _suggested(
    section: Sweep, number: int, past: Sequence[tuple[Setting, float | None]]
) -> list[Setting]:
    """Suggestions of the tree-structured Parzen estimator (Bergstra et al., "Algorithms for
    Hyper-Parameter Optimization", 2011), as Optuna implements it. The first round is random; in a
    round, those not yet run count as bad, so that suggestions differ; those without a number, for
    training diverged, as bad as the worst."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {key: _distribution(values) for key, values in section.parameters.items()}
    seed = int(np.random.SeedSequence([section.seed, number]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=section.trials, constant_liar=True, multivariate=True, seed=seed
    )
    study = optuna.create_study(sampler=sampler, direction="maximize")
    known = [value for _, value in past if value is not None]
    for setting, value in past:
        params = {
            key: values.index(setting[key]) if isinstance(values, list) else setting[key]
            for key, values in section.parameters.items()
        }
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=space,
                value=min(known, default=0.0) if value is None else value,
            )
        )
    found = []
    for _ in range(section.trials):
        asked = study.ask(space).params
        found.append(
            {
                key: values[int(asked[key])]
                if isinstance(values, list)
                else _tidy(asked[key], values)
                for key, values in section.parameters.items()
            }
        )
    return found


def _distribution(values: list[Any] | Range) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(values, list):  # by number, for Optuna takes no lists as values
        return CategoricalDistribution(range(len(values)))
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)
