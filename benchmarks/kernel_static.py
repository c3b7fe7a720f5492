"""How near can the Triton kernels come to a card's copy rate? Read from what the compiler makes of them; no GPU is needed.

python benchmarks/kernel_static.py                                       # mish and leaky_relu; --acts all for the others
python benchmarks/kernel_static.py --acts mish,leaky_relu --dtypes bf16 --layouts channels_last

Triton compiles each kernel ahead of time, and the tools in its wheel print the machine code. Counted are the instructions for
each value of the map (the body of a reduction's loop; all of a kernel that has none), those of the special function unit
(exponentials and reciprocals), the width of loads and stores, registers and spills. A kernel that reads and writes so
many bytes a value cannot be faster than the card's memory, nor than its instructions can be issued: the predicted share of
copy bandwidth is the smaller of 1 and the time to copy over the time to issue. Latency is not predicted: these are upper
bounds, "predicted, not measured".
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from yolomish.kernels import triton_code
from yolomish.kernels.formulas import CLOSED_FORMS

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
WARPS = 4  # Triton's default, which the launches leave as it is
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
# passes over the map, read and written
KERNELS = {"statistics": 1, "apply": 2, "reduce": 2, "input_gradient": 3, "value": 2, "slope": 3}
WITHOUT_LAYOUT = ("value", "slope")
COPY = 0.9  # of the stated bandwidth, what a copy reaches; about 3.0 of H100's 3.35 TB/s
LANES = 128  # a multiprocessor issues four instructions of 32 lanes in a clock
SPECIAL = 16  # lanes of the special function unit, CUDA C++ Programming Guide, throughput of native arithmetic instructions


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card's published numbers: target, multiprocessors, boost clock in GHz, memory bandwidth in TB/s."""

    arch: int
    multiprocessors: int
    clock: float
    bandwidth: float


CARDS = {
    # NVIDIA A100 Tensor Core GPU datasheet (80 GB SXM) and GA100 whitepaper
    "A100": Card(arch=80, multiprocessors=108, clock=1.41, bandwidth=2.039),
    # NVIDIA H100 datasheet (SXM); the clock under load, whitepaper's boost is 1.83
    "H100": Card(arch=90, multiprocessors=132, clock=1.75, bandwidth=3.35),
    # NVIDIA H200 datasheet: H100's chip with faster memory
    "H200": Card(arch=90, multiprocessors=132, clock=1.75, bandwidth=4.8),
    # NVIDIA B200 datasheet
    "B200": Card(arch=100, multiprocessors=148, clock=1.85, bandwidth=8.0),
    # NVIDIA Ada whitepaper; compiled for sm_89
    "RTX 4090": Card(arch=89, multiprocessors=128, clock=2.52, bandwidth=1.008),
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a kernel became: instructions and special functions per value, bits of an access to the map, spilled bytes."""

    instructions: float
    special: float
    access: int
    registers: int
    spills: int

    def share(self, card: Card, passes: int, size: int) -> float:
        """The predicted share of copy bandwidth of a kernel with ``passes`` over values of ``size`` bytes."""
        copying = passes * size / (COPY * card.bandwidth * 1e12)
        clocks = max(self.instructions / LANES, self.special / SPECIAL)
        return min(1.0, copying * card.multiprocessors * card.clock * 1e9 / clocks)


def compiled(name: str, act: str, dtype: str, channels_last: bool, arch: int) -> Machine:
    """A kernel compiled for ``sm_<arch>`` as a launch on aligned maps whose sizes are multiples of 16 would."""
    function = getattr(triton_code, f"{name}_kernel")
    tiles = triton_code.Tiles(torch.empty((1 << 18, 256, 1) if channels_last else (16, 256, 1 << 14), device="meta"))
    constants: dict[str, object] = {} if name == "statistics" else {"ACT": act}
    constants |= {"BLOCK": triton_code.TILE} if name in WITHOUT_LAYOUT else tiles.shape
    signature, attributes = {}, {}
    for i, argument in enumerate(function.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
            continue
        maps = argument in ("x_ptr", "y_ptr", "dy_ptr", "dx_ptr")
        signature[argument] = f"*{dtype}" if maps else "*fp32" if argument.endswith("_ptr") else "i32"
        if argument.endswith("_ptr") or argument in ("C", "S", "count"):
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
    kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": WARPS})
    values = constants["BLOCK"] * constants.get("CHANNELS", 1) / (32 * WARPS)
    return _read(kernel.asm["cubin"], values)


def _read(cubin: bytes, values: float) -> Machine:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        text = _tool("nvdisasm", "-c", str(file))
        usage = _tool("cuobjdump", "-res-usage", str(file))
    code, labels = [], {}
    for line in text.splitlines():
        if found := re.match(r"\s*(\.L_\w+):", line):
            labels[found.group(1)] = len(code)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(.*?);", line):
            code.append(found.group(1).strip())
    bodies = [
        code[labels[found.group(1)] : i + 1]
        for i, instruction in enumerate(code)
        if (found := re.match(r"BRA.*?(\.L_\w+)", instruction)) and labels.get(found.group(1), len(code)) < i
    ]
    steady = max(bodies, key=len) if bodies else [instruction for instruction in code if instruction != "NOP"]
    names = [instruction.split()[0] for instruction in steady]
    kinds = Counter(name.split(".")[0] for name in names)
    resources = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return Machine(
        instructions=len(steady) / values,
        special=kinds["MUFU"] / values,
        access=_access(code),
        registers=resources["REG"],
        spills=resources["STACK"] + resources["LOCAL"],
    )


def _access(code: Sequence[str]) -> int:
    """Bits of the loads and stores that carry most: those of the map, beside which channel constants are few."""
    widths: Counter[int] = Counter()
    for instruction in code:
        name = instruction.split()[0]
        if name.startswith(("LDG", "STG")):
            bits = re.search(r"\.(128|64|U16|U8)\b", name)
            widths[int(bits.group(1).lstrip("U")) if bits else 32] += 1
    return max(widths, key=lambda width: (widths[width] * width, width))


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Compile and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acts", default="mish,leaky_relu", help="activations by commas, or all")
    parser.add_argument("--dtypes", default="bf16,fp32")
    parser.add_argument("--layouts", default="channels_last,contiguous")
    parser.add_argument("--archs", default="80,89,90,100", help="compute capabilities times ten")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    acts = list(CLOSED_FORMS) if options.acts == "all" else options.acts.split(",")
    archs, layouts = [int(arch) for arch in options.archs.split(",")], options.layouts.split(",")
    rows = []
    for dtype, layout, (name, passes) in itertools.product(options.dtypes.split(","), layouts, KERNELS.items()):
        if name in WITHOUT_LAYOUT and layout != layouts[0]:
            continue
        for act in acts if name != "statistics" else ["-"]:
            for arch in archs:
                machine = compiled(name, act, dtype, layout == "channels_last", arch)
                share = {k: machine.share(card, passes, BYTES[dtype]) for k, card in CARDS.items() if card.arch == arch}
                where = "any" if name in WITHOUT_LAYOUT else layout
                named = {"kernel": name, "act": act, "dtype": dtype, "layout": where, "arch": f"sm_{arch}"}
                rows.append({**named, **asdict(machine), "share": share})
    if options.json:
        print(json.dumps(rows))
        return
    print("# Instructions of the Triton kernels, read from their machine code: predicted, not measured\n")
    print(f"`python {' '.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])}`, Triton {triton.__version__}\n")
    columns = ("kernel", "activation", "dtype", "layout", "target", "instructions per value", "special", "access, bits")
    print(f"| {' | '.join((*columns, 'registers', 'spills', 'share of copy bandwidth'))} |\n|{' --- |' * (len(columns) + 3)}")
    for row in rows:
        cells = [row["kernel"], row["act"], row["dtype"], row["layout"], row["arch"], f"{row['instructions']:.1f}"]
        cells += [f"{row['special']:.1f}", str(row["access"]), str(row["registers"]), str(row["spills"])]
        print(f"| {' | '.join([*cells, ', '.join(f'{card} {share:.2f}' for card, share in row['share'].items())])} |")


if __name__ == "__main__":
    main()
