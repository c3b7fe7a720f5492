"""The least exact exp and 1/x that PTX allows its fast instructions, for Triton's interpreter.

PTX ISA: ex2.approx.ftz.f32 is within 2^-22 of the truth, rcp.approx.ftz.f32 within 2^-23; both flush below 2^-126.
"""

import triton
import triton.language as tl

SIGN = 1  # to which side they err


@triton.jit
def exp(x):
    y = tl.exp(x) * (1 + SIGN * 2**-22)
    return tl.where(y < 2**-126, 0.0, y)


@triton.jit
def reciprocal(x):
    y = 1 / x * (1 + SIGN * 2**-23)
    return tl.where(y < 2**-126, 0.0, y)
