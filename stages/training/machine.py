"""The machine that computes: device, precision and threads, set once and recorded.

Results are equal to the last bit only between machines for which `device_class` is equal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from stages.errors import UserError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bf16-mixed"]


@dataclass(frozen=True)
class Machine:
    """What was chosen; `device_class` is what outputs may record of it."""

    device: str
    precision: str
    threads: int
    instructions: str

    def device_class(self) -> dict[str, str | int]:
        return asdict(self)


def configure(device: Device = "auto", precision: Precision = "auto", threads: int = 1) -> Machine:
    """Set up torch for this process and say what was chosen. Call it before any other use of
    torch.

    Raises:
        UserError: the device asked for is not there.
    """
    # How long a waiting thread spins before it sleeps. libgomp's default (300,000 turns) loses
    # two thirds of the speed when another job holds a core; sleeping at once loses a third on
    # quiet cores; this loses a tenth and a half.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is exact only with it
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _keep_freed_memory()
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "params.yaml: finetune.device: torch finds no GPU on this machine, got 'cuda'; "
            "write auto or cpu, or install a torch build for your GPU"
        )
    chosen = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads)
    # On CPUs this routes float32 products to oneDNN, at float32 accuracy and twice the speed
    # of the default on AMD. With AMX, oneDNN would take it as leave to multiply in bfloat16; on
    # GPUs "high" would be TF32. Both keep the exact default.
    if chosen == "cpu" and not torch.cpu._is_amx_tile_supported():
        torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=False)
    # Filling memory that is about to be written costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if precision == "auto":
        precision = "bf16-mixed" if _computes_bf16(chosen) else "float32"
    name = torch.cuda.get_device_name() if chosen == "cuda" else _instructions()
    return Machine(chosen, precision, threads, name)


def _instructions() -> str:
    """What numeric libraries choose their kernels by: the CPU's vendor and vector units."""
    import torch

    units = {
        "AVX512-BF16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    found = [torch.backends.cpu.get_cpu_capability(), *(name for name, has in units.items() if has)]
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found.insert(0, next(line for line in lines if "vendor" in line).split(":")[1].strip())
    return " ".join(found)


def _computes_bf16(device: str) -> bool:
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory: a dense embedding gradient is tens of megabytes, and
    mapping it anew at every step costs a page fault each 4 kB, up to half of a step."""
    m_trim_threshold, m_mmap_threshold = -1, -3
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)
    except (OSError, AttributeError):
        pass  # another C library; only speed is at stake


def quiet_lightning() -> None:
    """Silence Lightning's hints; they advise on choices that this project makes on purpose."""
    import logging
    import warnings

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
