"""What changes a transformer's layers beside merging: offloading, casting, LoRA, backends.

Each is done before applying and after it, and both give the same. For UNets the contracts say so:
test_contract_lora.py, test_contract_offload.py, test_contract_hosts.py and more.
"""

import pytest
import torch
from company import CHANGES
from diffusers.models.attention_dispatch import attention_backend
from tiny_transformers import FAMILIES

import retom

# torch will hand its own quantisation over to torchao.
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
]
CASES = [
    pytest.param(name, kind, id=f"{kind}-{name}")
    for kind, change in CHANGES.items()
    for name in change.denoisers
]


@pytest.fixture(autouse=True)
def _backend():
    """diffusers keeps the backend that was set last for all models of the process."""
    with attention_backend("native"):
        yield


def run(model, arguments):
    with torch.no_grad():
        return model(**arguments, return_dict=False)[0]


def tokens_in(model, name):
    """How many image tokens the first block's layers get in a call."""
    seen = []
    block = next(m for n, m in model.named_modules() if n == "transformer_blocks.0")
    norm = (
        getattr(block, "norm2", None) or block.img_norm2
    )  # of the image's stream, in front of its MLP; no parameters to change
    hook = norm.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[1]))
    run(model, FAMILIES[name].call(8, 6, 1))
    hook.remove()
    return seen


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_before_and_after_give_the_same_and_merging_comes_off(name, kind):
    if kind == "LoRA":
        pytest.importorskip("peft")
    family, change = FAMILIES[name], CHANGES[kind]
    arguments = family.call(8, 6, 1)
    changed = family.build()
    change.make(changed)
    unmerged = run(changed, arguments)
    before = retom.apply(changed)
    after = family.build()
    retom.apply(after)
    merged = run(after, arguments)
    change.make(after)

    output = run(changed, arguments)
    assert torch.equal(run(after, arguments), output)
    assert not torch.equal(output, unmerged)
    if change.same:
        torch.testing.assert_close(output, merged, rtol=1e-5, atol=1e-6)
    else:
        assert not torch.equal(output, merged)
    assert tokens_in(changed, name) == tokens_in(after, name) == [24]
    before.remove()
    assert torch.equal(run(changed, arguments), unmerged)
    assert tokens_in(changed, name) == [48]
