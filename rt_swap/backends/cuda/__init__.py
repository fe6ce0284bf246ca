"""TensorRT on an NVIDIA GPU: crop, network and compose as one CUDA graph.

``fatbin`` and ``probe`` say what can run here; ``driver`` is what is asked of CUDA, and
``pycuda_driver`` how PyCUDA gives it; ``chain`` is one graph with its buffers on its owner thread,
``session`` and ``backend`` what the rest of rt_swap sees of it. docs/cuda.md explains the whole.
"""
