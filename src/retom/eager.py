"""Whether tensors of a device are computed one operation after another by a CPU.

There memory is what costs: it is worth the code to use it again, and to stay in the cache. An
accelerator's allocator and a compiler see to both themselves.
"""

import torch


def runs_on_cpu(device: torch.device) -> bool:
    """Whether operations run on a CPU, here and now, and are not being compiled."""
    return device.type == "cpu" and not torch.compiler.is_compiling()
