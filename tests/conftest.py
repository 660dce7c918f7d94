"""Fixtures that several tests share."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("WANDB_MODE", "disabled")

# A shell that starts the suite in the background makes it ignore Ctrl-C, and so would every
# process that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
