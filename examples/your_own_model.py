"""Teach retom a transformer of your own, prove that it was described rightly, and merge in it.

python examples/your_own_model.py
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

import retom
from retom.testing import check_block_spec


class MyBlock(nn.Module):
    """Text and image in one attention; the image's tokens are turned by a rotary table."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, text: Tensor, states: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]:
        """Text (B, T, C), image tokens (B, N, C), and angles (N, C / heads / 2) of the latter."""
        tokens = torch.cat([text, states], dim=1)
        query, key, value = self.to_qkv(self.norm(tokens)).chunk(3, dim=-1)
        parts = [x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value)]
        query, key = (turned(x, rotary) for x in parts[:2])
        mixed = functional.scaled_dot_product_attention(query, key, parts[2])
        tokens = tokens + self.to_out(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + self.mlp(tokens)
        return tokens[:, : text.shape[1]], tokens[:, text.shape[1] :]


def turned(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn pairs of channels of the image's tokens, which are the last."""
    text, image = x.tensor_split([x.shape[2] - len(rotary)], dim=2)
    a, b = image.chunk(2, dim=-1)
    cos, sin = rotary.cos(), rotary.sin()
    return torch.cat([text, torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)], dim=2)


class MyTransformer(nn.Module):
    """Pictures (B, 4, H, W) in patches of 2 x 2."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, width, 2, stride=2)
        self.blocks = nn.ModuleList(MyBlock(width, heads) for _ in range(depth))
        self.leave = nn.ConvTranspose2d(width, 4, 2, stride=2)
        self.angles = width // heads // 4

    def forward(self, picture: Tensor, text: Tensor) -> Tensor:
        """Guess the noise in a picture, told a text (B, T, C)."""
        tokens = self.enter(picture)
        height, width = tokens.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        speeds = 10 ** -torch.linspace(0, 2, self.angles)
        places = torch.stack([rows.flatten(), columns.flatten()], dim=-1)
        rotary = (places[:, :, None] * speeds).flatten(1)
        states = tokens.flatten(2).transpose(1, 2)
        for block in self.blocks:
            text, states = block(text, states, rotary)
        return self.leave(states.transpose(1, 2).unflatten(2, (height, width)))


retom.register_block(
    "MyBlock",
    retom.BlockSpec(
        tokens="states",  # the argument with the image's tokens
        output=1,  # their place in what the block returns
        rotary=(retom.Along("rotary", axis=0, batch=None),),  # an entry for each, one table for all
    ),
    denoiser="MyTransformer",
    denoiser_spec=retom.DenoiserSpec(grid=retom.FeatureMap("picture", patch=2)),
)

torch.manual_seed(0)
model = MyTransformer().eval()
arguments = {"picture": torch.randn(2, 4, 24, 16), "text": torch.randn(2, 5, 64)}

proof = check_block_spec(model, arguments)  # raises with what is wrong
print(f"{proof.blocks} blocks, permutation error {proof.permutation_error:.0e}")

with retom.applied(model, ratio=0.5) as handle, torch.no_grad():
    model(**arguments)
    print(handle.summary())
