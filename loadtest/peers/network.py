"""One route of a checkpoint in PyTorch, written as an engineer would who wants it fast: one product for query, key and
value, and in the last block everything behind them for the last position alone."""

import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm, linear

# What a score of a seen item becomes; finite, since not every runtime sorts infinities.
NEVER = -1e30


class Block(nn.Module):
    """A post-norm block: x = LN(x + a·Attention(x)), x = LN(x + a·FFN(x))."""

    def __init__(self, weights, config, layer, width, last):
        super().__init__()
        self.heads, self.width, self.last = config["heads"], width, last
        self.eps = config.get("norm_eps", 1e-5)
        full = config["hidden"][-1]
        inner = 4 * (width if config["ffn_inner"] == "slice" else full)
        self.scale = ((width if config["attention_scale"] == "slice" else full) // self.heads) ** -0.5
        # A head of the slice is a prefix of every head.
        rows = torch.cat(
            [torch.arange(width // self.heads) + head * full // self.heads for head in range(self.heads)]
        )

        def of(name):
            return weights[f"backbone.blocks.{layer}.{name}"]

        projections = [f"attention.{name}" for name in ("query", "key", "value")]
        self.keep("qkv_weight", torch.cat([of(f"{name}.weight")[rows, :width] for name in projections]))
        self.keep("qkv_bias", torch.cat([of(f"{name}.bias")[rows] for name in projections]))
        # The residual's scalar goes into the weights: a product less at run time.
        attention, ffn = of("attention_residual"), of("ffn_residual")
        self.keep("out_weight", attention * of("attention.output.weight")[:width, :width])
        self.keep("out_bias", attention * of("attention.output.bias")[:width])
        self.keep("inner_weight", of("ffn.inner.weight")[:inner, :width])
        self.keep("inner_bias", of("ffn.inner.bias")[:inner])
        self.keep("outer_weight", ffn * of("ffn.outer.weight")[:width, :inner])
        self.keep("outer_bias", ffn * of("ffn.outer.bias")[:width])
        # Added to the scores of a query by a key: [heads, max_len, max_len], by distance.
        self.relative = config.get("positions") == "relative"
        if self.relative:
            places = torch.arange(config["max_len"])
            distances = (places[:, None] - places[None, :]).clamp(min=0)
            self.keep("bias", weights["backbone.position_bias"][layer][:, distances])
        for norm in ("attention_norm", "ffn_norm"):
            self.keep(f"{norm}_weight", of(f"{norm}.weight")[:width])
            self.keep(f"{norm}_bias", of(f"{norm}.bias")[:width])

    def keep(self, name, value):
        self.register_buffer(name, value.contiguous().clone())

    def forward(self, x, mask):
        # Not from the shape: an export wants it constant.
        batch, length, width = x.shape[0], x.shape[1], self.width
        if self.relative:
            mask = mask + self.bias[:, -length:, -length:]
        if self.last:
            asked, mask = x[:, -1:], mask[:, :, -1:]
            query = linear(asked, self.qkv_weight[:width], self.qkv_bias[:width])
            key, value = linear(x, self.qkv_weight[width:], self.qkv_bias[width:]).chunk(2, dim=-1)
        else:
            asked = x
            query, key, value = linear(x, self.qkv_weight, self.qkv_bias).chunk(3, dim=-1)
        heads = lambda t: t.reshape(batch, -1, self.heads, width // self.heads).transpose(1, 2)
        scores = heads(query) @ heads(key).transpose(2, 3) * self.scale + mask
        mixed = (scores.softmax(-1) @ heads(value)).transpose(1, 2).reshape(batch, -1, width)
        x = asked + linear(mixed, self.out_weight, self.out_bias)
        x = layer_norm(x, (width,), self.attention_norm_weight, self.attention_norm_bias, self.eps)
        x = x + linear(gelu(linear(x, self.inner_weight, self.inner_bias)), self.outer_weight, self.outer_bias)
        return layer_norm(x, (width,), self.ffn_norm_weight, self.ffn_norm_bias, self.eps)


class Route(nn.Module):
    """Scores of one route, what was seen masked, and the best k.

    Histories are [batch, length] of dense ids, right aligned and padded with 0 on the left; length is at most max_len.
    Gives scores and items, [batch, k] each, best first.
    """

    def __init__(self, checkpoint, name, k=10):
        super().__init__()
        weights, config, self.k = checkpoint.weights, checkpoint.config, k
        width, depth, embedding = checkpoint.route(name)
        self.register_buffer("items", weights["backbone.item_embedding"][:, :embedding].contiguous())
        self.positioned, self.eps = config.get("positions", "newest"), config.get("norm_eps", 1e-5)
        if self.positioned != "relative":
            self.register_buffer("positions", weights["backbone.position_embedding"][:, :embedding].contiguous())
        self.embedding_norm = config.get("embedding_norm", False)
        if self.embedding_norm:
            for part in ("weight", "bias"):
                norm = weights[f"backbone.embedding_norm.{part}"][:embedding]
                self.register_buffer(f"embedding_norm_{part}", norm.contiguous())
        self.register_buffer("input_weight", weights["backbone.input.weight"][:width, :embedding].contiguous())
        self.register_buffer("input_bias", weights["backbone.input.bias"][:width].contiguous())
        self.blocks = nn.ModuleList(
            Block(weights, config, layer, width, last=layer == depth - 1) for layer in range(depth)
        )
        self.register_buffer("output_weight", weights["backbone.output.weight"][:, :width].contiguous())
        self.register_buffer("output_bias", weights["backbone.output.bias"].contiguous())

    def forward(self, histories):
        length = histories.shape[1]
        places = torch.arange(length, device=histories.device)
        x = self.items[histories]
        if self.positioned == "newest":
            x = x + self.positions[-length:]
        elif self.positioned == "oldest":
            padding = (histories == 0).sum(1, keepdim=True)
            x = x + self.positions[(places - padding).clamp(min=0)]
        if self.embedding_norm:
            size = (x.shape[-1],)
            x = layer_norm(x, size, self.embedding_norm_weight, self.embedding_norm_bias, self.eps)
        x = linear(x, self.input_weight, self.input_bias)
        allowed = (places[None, :] <= places[:, None]) & (histories != 0)[:, None, None, :]
        mask = torch.where(allowed, 0.0, NEVER).to(x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        scores = linear(x[:, -1], self.output_weight, self.output_bias)
        # Item 0 is padding and no answer.
        seen = torch.cat([histories, torch.zeros_like(histories[:, :1])], dim=1)
        scores = scores.scatter(1, seen, torch.full_like(seen, NEVER, dtype=scores.dtype))
        return scores.topk(self.k, dim=1)


def padded(histories):
    """Histories as one [batch, longest] tensor."""
    longest = max(map(len, histories))
    return torch.tensor([[0] * (longest - len(items)) + items for items in histories])
