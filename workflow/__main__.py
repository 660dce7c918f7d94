"""Commands around the pipeline.

    python -m workflow compare REV      the present results beside those of a git revision
    python -m workflow recipe           bring the recipes in step with params.yaml
    python -m workflow share            give the team what was computed here
    python -m workflow fetch            take from the team what the present parameters need
    python -m workflow sweep            the search of params.yaml: plans trials and runs them

Exit codes: 0 done; 2 something that you can mend, said in one line each; 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys

from stages.errors import UserError, did_you_mean

COMMANDS = ("compare", "fetch", "recipe", "share", "sweep")


def main(arguments: list[str]) -> int:
    """Exit code of a command line."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(__doc__.strip())
        return 0 if arguments else 2
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            raise UserError(
                f"python -m workflow: no such command, got {name!r}; {did_you_mean(name, COMMANDS)}"
            )
        found: int = importlib.import_module(f"workflow.{name}").main(rest)
        return found
    except UserError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
