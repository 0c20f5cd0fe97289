"""The GPU kernels compile for every GPU that they are offered to. NVRTC needs no GPU for that."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "inference" / "src" / "model" / "cuda" / "kernels.cu"
# Ampere (A100, RTX 30), Ada, Hopper, Blackwell (B200, RTX 50).
CAPABILITIES = (80, 86, 89, 90, 100, 120)
SHORT = (32, 64, 128)


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    (packages,) = importlib.util.find_spec("nvidia").submodule_search_locations
    folder = Path(packages) / "cu13" / "lib"
    ctypes.CDLL(str(folder / "libnvrtc-builtins.so.13.0"), ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(folder / "libnvrtc.so.13"))


def compile(nvrtc: ctypes.CDLL, source: bytes, capability: int, head: int, half: int) -> tuple[int, str, bytes]:
    """NVRTC's answer, its log, and the machine code; with the options of inference/src/device/kernels.rs."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None) == 0
    options = [f"--gpu-architecture=sm_{capability}", "--std=c++17", "--use_fast_math", f"-DHEAD={head}", f"-DHALF={half}"]
    options = [option.encode() for option in [*options, "--ptxas-options=-v"]]
    answer = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    size.value = 0
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    if answer == 0:
        nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return answer, log.value.decode(), code.raw


# The heads of small and base-size models everywhere; the narrowest, the widest and fp16 where models mostly run.
CASES = [(capability, head, 0) for capability in CAPABILITIES for head in (32, 64)]
CASES += [(90, 16, 0), (90, 128, 0), (90, 32, 1), (80, 64, 1)]


@pytest.mark.parametrize("capability, head, half", CASES)
def test_every_kernel_compiles_and_keeps_its_numbers_in_registers(nvrtc, capability: int, head: int, half: int):
    answer, log, code = compile(nvrtc, SOURCE.read_bytes(), capability, head, half)
    assert answer == 0, log
    for name in [f"attend_{keys}" for keys in SHORT] + [f"{what}_norm_{n}" for what in ("add", "embed") for n in range(1, 9)] + ["pool"]:
        assert name.encode() in code, name
    spilled = [line for line in log.splitlines() if "spill" in line and " 0 bytes spill stores" not in line]
    assert not spilled, spilled


def test_the_compiler_says_what_is_wrong(nvrtc):
    answer, log, _ = compile(nvrtc, b"this is no program", 90, 32, 0)
    assert answer != 0 and "error" in log
