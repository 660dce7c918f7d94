"""`finetune` in a prepared folder, writing a checkpoint whenever it can and the norm of each step's
gradient to the file `norms`, and killed on request.

Run: python -m tests.ranks [RANK STEP]: the process of that rank dies before that optimizer step.
Ranks start one another by this command, as they do by that of the stage.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from stages import check, finetune
from stages.errors import UserError
from stages.training.checkpoints import Checkpoints


def main(rank: int | None = None, step: int = 0) -> int:
    from stages.training.module import FineTuning
    from stages.training.weights import whole

    plain = Checkpoints.__init__
    Checkpoints.__init__ = (  # type: ignore[method-assign]
        lambda self, folder: plain(self, folder, seconds=0.0, share=1e9)  # type: ignore[misc,assignment]
    )
    before = FineTuning.on_before_optimizer_step

    def dying(self: FineTuning, optimizer: Any) -> None:
        if self.ranks.rank == rank and self.trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        before(self, optimizer)
        gradients = [weight.grad for weight in self.parameters() if weight.grad is not None]
        norm = float(whole(torch.nn.utils.get_total_norm(gradients)))
        if self.ranks.speaks:
            with open("norms", "a", encoding="utf-8") as file:
                file.write(f"{norm}\n")

    FineTuning.on_before_optimizer_step = dying  # type: ignore[method-assign]
    params = check.load(Path("params.yaml"))
    try:
        finetune.run(params.sections["finetune"], params.run)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
