"""The PyTorch side: a checkpoint's two graphs, run by name and exported to ONNX."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from engines import onnx_rules
from engines.rewrite import fold_pixel_unshuffle
from rt_swap.contract import ENCODER_SPEC, GENERATOR_SPEC, GRAPHS, GraphSpec
from rt_swap.errors import ContractError, EngineBuildError
from rt_swap.frames import F32

OPSET = 18
"""What PyTorch's exporter writes without converting down; TensorRT 10.0 reads up to 20."""


class TorchGraph:
    """One of the contract's graphs as a PyTorch module, run by tensor name in fp32 on the CPU."""

    def __init__(self, module: nn.Module, spec: GraphSpec) -> None:
        """Wrap a module.

        Args:
            module: Positional tensors in and out, in the contract's order.
            spec: Which graph it is.
        """
        self.module = module.eval().float()
        self.spec = spec

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Every output by name, arrays of their own.

        Raises:
            ContractError: If the module answers with another number of outputs or other shapes.
        """
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[t.name])) for t in self.spec.inputs]
        with torch.no_grad():
            answer = self.module(*tensors)
        outputs = tuple(answer) if isinstance(answer, (tuple, list)) else (answer,)
        shapes = [tuple(o.shape) for o in outputs]
        if shapes != [t.shape for t in self.spec.outputs]:
            raise ContractError(
                f"{self.spec.name}: the module answers {shapes}, the contract says "
                f"{[(t.name, t.shape) for t in self.spec.outputs]}"
            )
        named = zip(self.spec.outputs, outputs, strict=True)
        return {t.name: o.detach().float().contiguous().numpy() for t, o in named}


def graphs_of_checkpoint(checkpoint: Path) -> dict[str, TorchGraph]:
    """Both graphs of a checkpoint, with its averaged weights.

    Args:
        checkpoint: A ``step_*`` folder.

    Returns:
        By graph name.

    Raises:
        ModelFileError: If the checkpoint is missing, corrupt or of other networks.
    """
    from training.checkpoint import load_net
    from training.networks.export_graphs import EncoderGraph, GeneratorGraph

    net, _ = load_net(checkpoint, averaged=True)
    return {
        ENCODER_SPEC.name: TorchGraph(EncoderGraph(net), ENCODER_SPEC),
        GENERATOR_SPEC.name: TorchGraph(GeneratorGraph(net), GENERATOR_SPEC),
    }


def export_onnx(graph: TorchGraph) -> onnx.ModelProto:
    """Export one graph: fp32, static shapes, the contract's names, nothing of this machine inside.

    Args:
        graph: The graph.

    Returns:
        A model that keeps to every rule of engines.onnx_rules.

    Raises:
        EngineBuildError: If PyTorch cannot export it, with its words, or a rule is broken.
    """
    spec = graph.spec
    example = tuple(torch.full(t.shape, 0.5) for t in spec.inputs)
    try:
        with torch.no_grad(), _quiet_exporter(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            program: Any = torch.onnx.export(
                graph.module,
                example,
                input_names=[t.name for t in spec.inputs],
                output_names=[t.name for t in spec.outputs],
                opset_version=OPSET,
                dynamo=True,
                optimize=True,
                verbose=False,
            )
    except Exception as exc:  # the exporter raises whatever the traced code raises
        raise EngineBuildError(f"{spec.name}: PyTorch cannot export it: {exc}") from exc
    model: onnx.ModelProto = program.model_proto
    fold_pixel_unshuffle(model)
    onnx_rules.clean(model)
    onnx_rules.check_rules(model, spec)
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter talks about its own progress and about packages it does not need."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def check_spec_names(graphs: Mapping[str, object]) -> None:
    """Both graphs of the contract, no more and no less.

    Raises:
        ContractError: Otherwise.
    """
    if set(graphs) != set(GRAPHS):
        raise ContractError(f"graphs must be {sorted(GRAPHS)}, got {sorted(graphs)}")
