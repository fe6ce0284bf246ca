"""The native module's signatures; see cpp_ext/bindings.cpp. Private: use rt_swap.ops."""

from rt_swap.frames import F32, F64, U8

def crop_rgb(frame_bgr: U8, M_frame_from_crop: F64, out: F32, threads: int) -> None: ...
def compose_bgr(
    frame_bgr: U8,
    M_crop_from_frame: F64,
    M_frame_from_crop: F64,
    flow_xy: F32,
    keep: F32,
    fill_rgb: F32,
    shade: F32 | None,
    weight: F32,
    box_xyxy: tuple[int, int, int, int],
    out_bgr: U8,
    threads: int,
) -> None: ...
def instruction_sets() -> list[str]: ...
def select_instruction_set(name: str) -> None: ...
def usable_cores() -> int: ...

GPU_ABI: int
GPU_FRAME_PARAMS_BYTES: int

def gpu_frame_params(
    out: U8,
    size_wh: tuple[int, int],
    size_px: int,
    M_frame_from_crop: F64,
    M_crop_from_frame: F64,
    part_xyxy: tuple[int, int, int, int],
    box_xyxy: tuple[int, int, int, int],
    in_address: int,
    out_address: int,
    layout: tuple[int, int, int, int],
    colours: tuple[float, ...] | None,
) -> None: ...
