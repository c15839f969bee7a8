"""A route as the peers run it: the module of `canet.to_torch` scores, then what was seen is masked and the best items are taken."""

import torch
from torch import nn

from package import Slice

# What a score of a seen item becomes; finite, since not every runtime sorts infinities.
NEVER = -1e30


class Route(nn.Module):
    """Scores of one route, what was seen masked, and the best k.

    Histories are [batch, length] of dense ids, right aligned and padded with 0 on the left; length is at most max_len.
    Gives scores and items, [batch, k] each, best first.
    """

    def __init__(self, checkpoint, name, k=10):
        super().__init__()
        self.slice, self.k = Slice(checkpoint.config, checkpoint.weights, name, list(checkpoint.items)), k

    def forward(self, histories):
        scores = self.slice(histories)
        # Item 0 is padding and no answer.
        seen = torch.cat([histories, torch.zeros_like(histories[:, :1])], dim=1)
        scores = scores.scatter(1, seen, torch.full_like(seen, NEVER, dtype=scores.dtype))
        return scores.topk(self.k, dim=1)


def padded(histories):
    """Histories as one [batch, longest] tensor."""
    longest = max(map(len, histories))
    return torch.tensor([[0] * (longest - len(items)) + items for items in histories])
