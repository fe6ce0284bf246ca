"""The training loop: load, forward, loss, step, average, log, snapshot."""

from __future__ import annotations

import copy
import ctypes
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, Generic, TypeVar

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rt_swap.errors import ConfigError
from training import losses
from training.checkpoint import (
    Progress,
    latest_checkpoint,
    layers_of,
    load_net,
    resume_checkpoint,
    save_checkpoint,
    warm_start,
)
from training.config import OptimConfig, TrainConfig
from training.data.dataset import Batch, BatchMaker, ShardSet, shards_for_swaps
from training.data.effect import effect_factor
from training.data.labelled import LabelledMaker, LabelledPictures
from training.grid import save_grid
from training.networks import Critics, RtNet, build
from training.objective import Objective, plan_samples, run_networks, validate
from training.parallel import World

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_MAX: Final = -4
"""Parameters of mallopt(3)."""


def schedule(step: int, progress: float, optim: OptimConfig) -> float:
    """Factor on the learning rates: linear warm-up, then a cosine down to ``final_lr_fraction``.

    Args:
        step: Steps done.
        progress: 0 at the start of the schedule, 1 at its end.
        optim: Options.
    """
    warm = min(1.0, (step + 1) / max(optim.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return warm * (optim.final_lr_fraction + (1 - optim.final_lr_fraction) * cosine)


def ema_decay_at(step: int, decay: float) -> float:
    """``min(decay, (1 + t) / (10 + t))``: a short memory while everything still moves fast."""
    return min(decay, (1 + step) / (10 + step))


T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Makes the next batch on one background thread while this one trains. Same batches as
    without it.

    Args:
        make: (cursor, count, further options by name) -> batch.
        stride: Counts from one batch to the next, more than 1 where others make those between.
    """

    def __init__(self, make: Callable[..., T], stride: int = 1) -> None:
        self._make, self._stride = make, stride
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[tuple[int, int, dict[str, Any]], Future[T]] | None = None

    def get(self, cursor: int, count: int, **options: Any) -> T:
        """The batch at a cursor; starts on the one after it. Arguments as those of ``make``."""
        if self._next is not None and self._next[0] == (cursor, count, options):
            batch = self._next[1].result()
        else:
            batch = self._make(cursor, count, **options)
        following = cursor + self._stride * count
        after = self._pool.submit(self._make, following, count, **options)
        self._next = ((following, count, options), after)
        return batch

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets; the former handlers come back afterwards. Main
    thread only.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _: FrameType | None) -> None:
        logger.info("signal %d: finishing this step, then saving", number)
        stop.set()

    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def prepare_torch(seed: int, threads: int) -> None:
    """The one place where seeds, threads, memory and numeric flags are set."""
    _keep_memory()
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def _keep_memory() -> None:
    """Have glibc keep freed memory: a step's big tensors are the last step's size, and fetching
    their pages from the system anew costs an eighth of a step (measured on two cores). No effect
    where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def wear(
    net: RtNet,
    denture: Path | None,
    mesh: Path | None,
    checkpoint: Path | None,
    *,
    will_resume: bool,
) -> None:
    """Give networks what is known of faces beforehand: their layers to those that show mouths from
    layers, and their points' motions to those that draw motion from a mesh.

    Args:
        net: The networks.
        denture: File of training.data.denture; it takes the place of what a checkpoint gave.
        mesh: File of training.data.face_mesh; the same. Whoever starts from a whole checkpoint has
            its mesh already, with what it learned; whoever starts from parts of one, as a fresh
            generator, needs the file.
        checkpoint: Whose layers to take where there is no such file.
        will_resume: A run goes on: its weights come later, all this included.

    Raises:
        ConfigError: If there is nothing to give, it is not such, or there is nobody to have it.
        ModelFileError: If the checkpoint cannot be read.
    """
    for part, file, option, makes in (
        ("mouth", denture, "mouth_hidden", "training.data.denture"),
        ("mesh", mesh, "mesh_features", "training.data.face_mesh"),
    ):
        worn = getattr(net.generator, part, None)
        flag = makes.rsplit(".", 1)[1].replace("_", "-")
        if worn is None:
            if file is not None:
                raise ConfigError(f"train: --{flag} is for networks with {option}; drop it")
            continue
        if will_resume or (file is None and not worn.is_empty):
            continue
        try:
            if file is not None:
                worn.wear(**load_file(file))
            elif part == "mouth" and checkpoint is not None and (given := layers_of(checkpoint)):
                worn.wear(**given)
            else:
                raise ConfigError(
                    f"train: network.{option} needs what these weights do not have; make it with "
                    f"python -m {makes} and give --{flag} FILE"
                )
        except (OSError, SafetensorError, TypeError, ValueError) as exc:
            where = checkpoint if file is None else file
            raise ConfigError(f"train: the {part} of {where} cannot be used: {exc}") from exc


def loop(
    *,
    config: TrainConfig,
    shards: list[Path],
    val_shards: list[Path],
    out: Path,
    labelled: list[Path] | None = None,
    reading_shards: list[Path] | None = None,
    denture: Path | None = None,
    face_mesh: Path | None = None,
    resume: bool = False,
    init_from: Path | None = None,
    init_parts: Sequence[str] = (),
    only: Sequence[str] = (),
    distil_from: Path | None = None,
    time_budget_min: float | None = None,
    max_steps: int | None = None,
    device: str = "auto",
    threads: int = 2,
    progress_bar: bool = False,
    world: World | None = None,
) -> Progress:
    """Train.

    Args:
        config: What to train and how.
        shards: Training shards, or folders of them.
        val_shards: The same of held-out people; empty for no validation.
        out: Run directory: ``log.jsonl``, ``grids/``, ``checkpoints/``.
        labelled: Folders of labelled pictures (training.data.labelled); their held-out people
            never train.
        reading_shards: Where ``config.reading_quadruples`` come from, and phases that train the
            encoder alone; they may hold pictures only. None for ``shards``.
        denture: File of training.data.denture, for networks with mouth_hidden that have none yet.
        face_mesh: File of training.data.face_mesh, the same for networks with mesh_features.
        resume: Go on from the newest checkpoint in ``out`` (from the start where there is none).
        init_from: Checkpoint whose fitting weights are the start.
        init_parts: Only these parts of it ("encoder", "generator", "label_tokens"); empty for all.
        only: Train only weights whose names start so, such as "generator.mouth."; empty for all.
        distil_from: Checkpoint of a larger network, whose readings the encoder learns, too.
        time_budget_min: Minutes of training, over all resumptions; takes the place of
            ``config.steps``.
        max_steps: Stop after this step of the schedule without finishing it (None: never).
        device: "auto", "cpu" or "cuda".
        threads: CPU threads of torch.
        progress_bar: Draw one on stderr.
        world: The processes that train together (training.parallel); None for this one alone. Every
            process makes the configured number of quadruples, so a step takes that many times
            more; terms in the log are the leading process's.

    Returns:
        Where the run ended.

    Raises:
        ConfigError: If options do not fit each other or the data.
        ContractError, ModelFileError: If data or a checkpoint is wrong.
    """
    prepare_torch(config.seed, threads)
    world = world or World()
    place = world.device(device)

    # data
    data = shards_for_swaps(shards, "shards")
    read = ShardSet(reading_shards) if reading_shards else data
    reads_alone = any(phase.encoder_only for phase in config.phases)
    reads_only = all(phase.encoder_only for phase in config.phases)
    if reading_shards and not (config.reading_quadruples or reads_alone):
        raise ConfigError(
            "train: nothing reads --reading-shards; set reading_quadruples, or a phase with "
            "encoder_only"
        )
    fields = config.network.unit_channels > 0 and config.losses.unit_fields > 0
    nudged = config.augment.nudge > 0
    if nudged and read.without_fields:
        raise ConfigError(
            f"train: augment.nudge moves units by their fields, which {len(read.without_fields)} of"
            f" {len(read.shards)} shards to read lack ({read.without_fields[0]} ...): render them "
            "again, or set augment.nudge=0"
        )
    fields |= nudged and reads_alone and not reading_shards
    shapes = read.shapes() if config.augment.reshape > 0 else None
    if config.network.fold_depth and data.folding and not reads_only:
        raise ConfigError(
            f"train: in {len(data.folding)} of {len(data.shards)} --shards skin folds "
            f"({data.folding[0]} ...), and these networks draw folds as they are used: they would "
            "be drawn twice; render without --folding, or give these as --reading-shards"
        )
    meshed = config.network.scheme == "rt" and config.network.mesh_features > 0
    maker = BatchMaker(
        data, config.augment, config.seed, fields=fields, landmarks=meshed, shapes=shapes
    )
    reading_maker = None
    if config.reading_quadruples or reading_shards:
        # another seed: where they are the same pictures, in another order and varied otherwise
        reading_maker = BatchMaker(
            read, config.augment, config.seed + 1, fields=True, shapes=shapes
        )
    if fields and data.without_fields:
        logger.warning(
            "%d of %d shards were made before shards held the fields of units (%s ...): the "
            "generator learns them from swaps alone; render them again",
            len(data.without_fields), len(data.shards), data.without_fields[0],
        )  # fmt: skip
    held_out = shards_for_swaps(val_shards, "val_shards") if val_shards else None
    if held_out is not None and (data.people() | read.people()) & held_out.people():
        raise ConfigError(
            "train: some people are in --val-shards and in --shards or --reading-shards; "
            "make shards with the split rule"
        )
    plain = None if held_out is None else BatchMaker(held_out, None, 0, landmarks=meshed)
    rates = data.positive_rates(config.losses.presence_threshold)
    weights = losses.au_weights(torch.from_numpy(rates).float()).to(place)
    effect = torch.from_numpy(effect_factor(data)).to(place)
    logger.info("%d training quadruples, %d real crops", len(data), data.real_count)
    if reading_shards:
        logger.info("%d quadruples to read", len(read))
    labelled_maker, labelled_weights = None, None
    if labelled and config.losses.labelled_au > 0:
        known = LabelledPictures(labelled)
        labelled_maker = LabelledMaker(known, config.augment, config.seed)
        labelled_weights = known.au_weights(config.losses.presence_threshold).to(place)
        logger.info("%d labelled pictures of %d people", len(known), len(known.people))

    # networks, critics, optimisers
    net = build(config.network).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    critics = Critics(config.network).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if init_from is not None and not resume:
        copied, left = warm_start(init_from, net, critics, init_parts)
        logger.info("started from %s: %d tensors copied, %d new", init_from, copied, left)
    will_resume = resume and latest_checkpoint(out / "checkpoints") is not None
    wear(net, denture, face_mesh, init_from, will_resume=will_resume)
    if only:
        known = [name for name, _ in net.named_parameters()]
        for start in only:
            if not any(name.startswith(start) for name in known):
                raise ConfigError(f"train: no weight's name starts with {start!r} (--only)")
        for name, weight in net.named_parameters():
            if not name.startswith(tuple(only)):
                weight.requires_grad_(False)
    ema = copy.deepcopy(net).requires_grad_(False).eval()
    o = config.optim
    optimisers: dict[str, torch.optim.Optimizer] = {
        "net": torch.optim.AdamW(
            net.parameters(), o.lr, o.betas, weight_decay=o.weight_decay, fused=True
        ),
        "critics": torch.optim.Adam(critics.parameters(), o.critic_lr, o.critic_betas, fused=True),
    }
    larger = None
    if distil_from is not None:
        if config.losses.distilled == 0:
            raise ConfigError("train: --distil-from: losses.distilled is 0, so nothing is learnt")
        larger, _ = load_net(distil_from)
        larger = larger.requires_grad_(False).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = Objective(config, weights, effect, labelled_weights, larger)
    state = Progress()
    checkpoints = out / "checkpoints"
    newest = latest_checkpoint(checkpoints) if resume else None
    if newest is not None:
        state = resume_checkpoint(newest, config.network, net, ema, critics, optimisers)
        logger.info("resumed %s at step %d", newest, state.step)

    def progress_now(elapsed_s: float) -> float:
        if time_budget_min is not None:
            return min(elapsed_s / (60 * time_budget_min), 1.0)
        return min(state.step / config.steps, 1.0)

    def save() -> Path:
        return save_checkpoint(checkpoints, config, net, ema, critics, optimisers, state)

    val_cache: dict[int, list[Batch]] = {}

    def held_out_batches(size_px: int) -> list[Batch]:
        if size_px not in val_cache and plain is not None:
            count = min(config.log.validation_quadruples, len(plain.shards))
            val_cache.clear()
            val_cache[size_px] = [
                plain.batch(start, min(2, count - start), size_px).to(place)
                for start in range(0, count, 2)
            ]
        return val_cache.get(size_px, [])

    def look_at_held_out(size_px: int) -> None:
        state.figures = validate(ema, held_out_batches(size_px), config)
        _write(log, {"step": state.step, "validation": state.figures, "size_px": size_px})
        logger.info("step %d: %s", state.step, _short(state.figures))

    def draw_grid(size_px: int) -> None:
        path = out / "grids" / f"step_{state.step:08d}.png"
        save_grid(path, ema, held_out_batches(size_px), config)

    out.mkdir(parents=True, exist_ok=True)
    started, before = time.monotonic(), state.elapsed_s
    last_saved, running, since = started, _Mean(), started
    loader = Prefetcher(maker.batch, world.size)
    reading_loader = None if reading_maker is None else Prefetcher(reading_maker.batch, world.size)
    labelled_loader = (
        None if labelled_maker is None else Prefetcher(labelled_maker.batch, world.size)
    )
    bar = _Bar(progress_bar and world.leads)
    log_path = out / "log.jsonl" if world.leads else Path(os.devnull)
    with stop_on_signals() as stop, log_path.open("a") as log:
        try:
            while not world.any(stop.is_set(), place):
                state.elapsed_s = world.leaders(before + time.monotonic() - started, place)
                progress = progress_now(state.elapsed_s)
                if progress >= 1.0 or (max_steps is not None and state.step >= max_steps):
                    break
                phase = config.phase_at(progress)

                # load: everything random about a step follows from its number and the process's
                rng = np.random.default_rng(
                    (config.seed, 3, state.step, world.rank)
                    if world.rank
                    else (config.seed, 3, state.step)
                )
                readers = reading_loader if reading_shards and phase.encoder_only else None
                batch = (
                    (readers or loader)
                    .get(
                        state.cursor + world.rank * phase.quadruples,
                        phase.quadruples,
                        size_px=phase.size_px,
                        instructions=not phase.encoder_only,
                        real=objective.adversarial_on(progress),
                    )
                    .to(place)
                )
                extra = None
                if labelled_loader is not None and progress >= config.losses.labelled_from:
                    count = config.labelled_pictures
                    first = (state.step * world.size + world.rank) * count
                    extra = labelled_loader.get(first, count).to(place)
                more = None
                if reading_loader and config.reading_quadruples and not phase.encoder_only:
                    count = config.reading_quadruples
                    first = (state.step * world.size + world.rank) * count
                    more = reading_loader.get(
                        first, count, size_px=phase.size_px, instructions=False
                    ).to(place)
                adversarial = objective.adversarial_due(state.step, progress)
                taught = config.samples.taught(progress)
                plan = plan_samples(batch.gains, config.samples, rng, adversarial, taught)

                # networks: forward, loss, step
                factor = schedule(state.step, progress, o)
                for name, rate in (("net", o.lr), ("critics", o.critic_lr)):
                    for group in optimisers[name].param_groups:
                        group["lr"] = rate * factor
                critics.requires_grad_(False)
                forward = None
                if phase.encoder_only:
                    total, terms = objective.encoder_losses(net, batch, extra)
                else:
                    forward = run_networks(net, batch, plan, config, extra)
                    total, terms = objective.generator_losses(
                        net, critics, batch, forward, state.step, progress, rng, extra
                    )
                if more is not None:
                    reading, _ = objective.encoder_losses(net, more)
                    total, terms = total + reading, terms | {"reading": reading}
                optimisers["net"].zero_grad(set_to_none=True)
                total.backward()  # type: ignore[no-untyped-call]
                world.average_gradients(net.parameters())
                norm = nn.utils.clip_grad_norm_(net.parameters(), o.clip_norm)
                if bool(torch.isfinite(norm)):
                    optimisers["net"].step()
                else:
                    logger.warning("step %d: gradient is not finite, step skipped", state.step)

                # critics, on the same results
                critics.requires_grad_(True)
                critic_total: torch.Tensor | None = None
                critic_terms: dict[str, torch.Tensor] = {}
                if forward is not None:
                    critic_total, critic_terms = objective.critic_losses(
                        critics, batch, forward, state.step, progress
                    )
                if world.any(critic_total is not None, place):
                    optimisers["critics"].zero_grad(set_to_none=True)
                    if critic_total is not None:
                        critic_total.backward()  # type: ignore[no-untyped-call]
                    world.average_gradients(critics.parameters())
                    optimisers["critics"].step()

                # average
                with torch.no_grad():
                    world.average(list(net.buffers()))
                _average(ema, net, ema_decay_at(state.step, o.ema_decay))
                state.step += 1
                state.cursor += world.size * phase.quadruples
                running.add({"total": total, "grad_norm": norm, **terms, **critic_terms})

                # log
                if state.step % config.log.log_every == 0:
                    now = time.monotonic()
                    line = {
                        "step": state.step,
                        "progress": round(progress, 5),
                        "size_px": phase.size_px,
                        "seconds_per_step": round((now - since) / config.log.log_every, 4),
                        "elapsed_s": round(state.elapsed_s, 1),
                        "lr": o.lr * factor,
                        **running.take(),
                    }
                    since = now
                    _write(log, line)
                    bar.show(line, progress)

                # look and validate
                if not world.leads:
                    continue
                if state.step % config.log.validate_every == 0 and held_out is not None:
                    look_at_held_out(phase.size_px)
                if state.step % config.log.grid_every == 0 and held_out is not None:
                    draw_grid(phase.size_px)

                # snapshot
                if time.monotonic() - last_saved > 60 * config.log.checkpoint_minutes:
                    save()
                    last_saved = time.monotonic()
        finally:
            loader.close()
            if reading_loader is not None:
                reading_loader.close()
            if labelled_loader is not None:
                labelled_loader.close()
            bar.close()
        state.elapsed_s = world.leaders(before + time.monotonic() - started, place)
        if not world.leads:
            return state
        if held_out is not None and not stop.is_set() and progress_now(state.elapsed_s) >= 1.0:
            size_px = config.phases[-1].size_px
            if state.step % config.log.validate_every:  # else it was just done
                look_at_held_out(size_px)
            draw_grid(size_px)
        logger.info("saved %s", save())
    return state


@torch.no_grad()
def _average(ema: nn.Module, net: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1.0 - decay)
    for kept, now in zip(ema.buffers(), net.buffers(), strict=True):  # batch statistics
        if kept.is_floating_point():
            kept.lerp_(now, 1.0 - decay)
        else:
            kept.copy_(now)


class _Mean:
    """Running means of terms; a lazy term's mean is over the steps that had it."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


class _Bar:
    """A progress bar in per mille of the schedule, or nothing."""

    def __init__(self, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(total=1000, unit="‰", dynamic_ncols=True)

    def show(self, line: dict[str, Any], progress: float) -> None:
        if self._bar is not None:
            self._bar.n = round(1000 * progress)
            keys = ("step", "total", "image", "flow", "au_l1")
            self._bar.set_postfix({k: f"{line[k]:.4g}" for k in keys if k in line})

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _write(log: IO[str], line: dict[str, Any]) -> None:
    log.write(json.dumps(line) + "\n")
    log.flush()


def _short(figures: dict[str, float]) -> str:
    keys = (
        "image_relative",
        "flow_relative",
        "mouth_relative",
        "eye_relative",
        "au_mae",
        "still_error",
    )
    return ", ".join(f"{key} {figures[key]:.4f}" for key in keys if key in figures)
