"""Attention, and what takes its place."""

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Query, key and value from one layer; the number of heads is left open, or is named."""

    def __init__(self, width, size, style):
        super().__init__()
        self.size, self.style, self.heads = size, style, width // size
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, _ = x.shape
        if self.style == "open":
            q, k, v = (part.view(b, n, -1, self.size).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        else:
            q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        if self.style == "softmax":
            y = (q @ k.transpose(-2, -1) / self.size**0.5).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(b, n, -1))


class Layer(nn.Module):
    def __init__(self, width, style, norm=nn.LayerNorm, act=F.gelu):
        super().__init__()
        self.norm1, self.norm2, self.attention = norm(width), norm(width), Attention(width, 4, style)
        self.up, self.down, self.act = nn.Linear(width, 3 * width), nn.Linear(3 * width, width), act

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.act(self.up(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self, style="named"):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.cls, self.position = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 5, 12))
        self.layers = nn.Sequential(Layer(12, style), Layer(12, style))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.layers(x))[:, 0])


class MixerBlock(nn.Module):
    def __init__(self, tokens, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 12), nn.GELU(), nn.Linear(12, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.blocks = nn.Conv2d(3, 10, 4, 4), nn.Sequential(MixerBlock(4, 10), MixerBlock(4, 10))
        self.norm, self.head = nn.LayerNorm(10), nn.Linear(10, 5)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.patch(x).flatten(2).transpose(1, 2))).mean(1))


class GatedMLP(nn.Module):
    """gMLP: one half of the channels gates the other over positions."""

    def __init__(self):
        super().__init__()
        self.a, self.up, self.space = nn.Linear(6, 10), nn.Linear(10, 16), nn.Conv1d(5, 5, 1)
        self.norm, self.down, self.out = nn.LayerNorm(8), nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.a(x)
        u, v = F.gelu(self.up(x)).chunk(2, -1)
        return self.out(x + self.down(u * self.space(self.norm(v))))


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Llama(nn.Module):
    """Rotary positions, grouped keys, a gated feed-forward part, RMSNorm and a causal mask."""

    def __init__(self, width=16, size=4):
        super().__init__()
        self.size, self.table = size, nn.Embedding(30, width)
        self.q, self.k, self.v = nn.Linear(width, width, False), nn.Linear(width, 8, False), nn.Linear(width, 8, False)
        self.o, self.norm1, self.norm2 = nn.Linear(width, width, False), RMSNorm(width), RMSNorm(width)
        self.gate, self.up, self.down = (
            nn.Linear(width, 24, False),
            nn.Linear(width, 24, False),
            nn.Linear(24, width, False),
        )
        self.head = nn.Linear(width, 30, False)
        self.head.weight = self.table.weight
        self.register_buffer("frequency", 0.1 ** torch.arange(0, size, 2).float(), persistent=False)

    def rotate(self, x, angle):
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * angle.cos() + turned * angle.sin()

    def forward(self, tokens):
        x = self.table(tokens)
        b, n, _ = x.shape
        angle = torch.outer(torch.arange(n, device=x.device).to(x.dtype), self.frequency)
        angle = torch.cat([angle, angle], -1)
        y = self.norm1(x)
        q, k, v = (part(y).view(b, n, -1, self.size).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = self.rotate(q, angle), self.rotate(k, angle)
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, n, -1))
        y = self.norm2(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class GPT(nn.Module):
    """nanoGPT: a causal mask as a buffer, learned positions, a tied head."""

    def __init__(self, width=12):
        super().__init__()
        self.token, self.position = nn.Embedding(20, width), nn.Embedding(10, width)
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), 3
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down, self.head = nn.Linear(width, 32), nn.Linear(32, width), nn.Linear(width, 20, bias=False)
        self.head.weight = self.token.weight
        self.register_buffer("mask", torch.tril(torch.ones(10, 10)))

    def forward(self, tokens):
        b, n = tokens.shape
        x = self.token(tokens) + self.position(torch.arange(n, device=tokens.device))
        c = x.shape[-1]
        q, k, v = self.qkv(self.norm1(x)).split(c, 2)
        q, k, v = (part.view(b, n, self.heads, c // self.heads).transpose(1, 2) for part in (q, k, v))
        score = (q @ k.transpose(-2, -1)) * (1.0 / k.shape[-1] ** 0.5)
        score = score.masked_fill(self.mask[:n, :n] == 0, float("-inf")).softmax(-1)
        x = x + self.out((score @ v).transpose(1, 2).contiguous().view(b, n, c))
        return self.head(x + self.down(F.gelu(self.up(self.norm2(x)))))


def transformer_encoder():
    layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True, activation="gelu", norm_first=True)
    return nn.Sequential(
        nn.Linear(6, 12), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(12, 3)
    )


class Transformer(nn.Module):
    """Encoder and decoder."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.body = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

    def forward(self, x):
        return self.out(self.body(self.a(x), self.b(x[:, :3])))


class Perceiver(nn.Module):
    """Learned queries look at the input."""

    def __init__(self, width=12):
        super().__init__()
        self.latent = nn.Parameter(torch.randn(4, width))
        self.q, self.kv, self.o = nn.Linear(width, width), nn.Linear(6, 2 * width), nn.Linear(width, width)
        self.up, self.down, self.head = nn.Linear(width, 24), nn.Linear(24, width), nn.Linear(width, 3)

    def forward(self, x):
        k, v = self.kv(x).chunk(2, -1)
        q = self.q(self.latent).expand(len(x), -1, -1)
        y = self.o(torch.einsum("bij,bjd->bid", torch.einsum("bid,bjd->bij", q, k).softmax(-1), v))
        return self.head((y + self.down(torch.relu(self.up(y)))).mean(1))


class Swin(nn.Module):
    """Windows of 2 × 2 and merged patches."""

    def __init__(self, width=8):
        super().__init__()
        self.patch, self.layer = nn.Conv2d(3, width, 2, 2), Layer(width, "named")
        self.norm, self.merge, self.head = (
            nn.LayerNorm(4 * width),
            nn.Linear(4 * width, 12, bias=False),
            nn.Linear(12, 3),
        )

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        x = self.layer(x)
        x = x.view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.merge(self.norm(x)).mean((1, 2)))
