"""MCP against the lasso

The lasso shrinks everything that it keeps. So it asks for a weak penalty, and a weak penalty lets useless inputs in.
MCP leaves large weights alone. We draw data of which the truth is known, 100 rows and 50 inputs of which 5 matter, and
look at what each finds at the strength that cross-validation chooses.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import torchshrink as ts

truth = torch.zeros(50, dtype=torch.float64)
truth[:5] = torch.tensor([3.0, -2.5, 2.0, -2.0, 1.5])


def draw(seed, noise):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(100, 50, generator=generator, dtype=torch.float64)
    return X, (X @ truth + noise * torch.randn(100, generator=generator, dtype=torch.float64))[:, None]


def build():
    return nn.Linear(50, 1, dtype=torch.float64)


def found(penalty, noise):
    """The means over two data sets: useless inputs kept, useful ones lost, and the distance to the true weights."""
    rows = []
    for seed in range(2):
        data = draw(seed, noise)
        result = ts.path(build, data, penalty, strengths=6, folds=3, repeats=1, progress=False)
        weight = result.refit()[0].weight.detach()[0]
        rows.append([(weight[5:] != 0).sum(), (weight[:5] == 0).sum(), (weight - truth).norm()])
    return torch.tensor(rows).mean(0).tolist()


# %%
# With little noise MCP keeps fewer useless inputs, and comes nearer to the true weights.

lasso, mcp = found(ts.L1, 1.0), found(ts.MCP, 1.0)
print("little noise:", lasso, mcp)
assert mcp[0] < lasso[0]
assert mcp[1] == lasso[1] == 0
assert mcp[2] < 0.8 * lasso[2]

# %%
# With so much noise that the signals drown in it, both lose useful inputs, and neither comes near the truth. MCP is no
# better penalty; it is better where some signals are strong.

drowned, mcp_drowned = found(ts.L1, 12.0), found(ts.MCP, 12.0)
print("much noise:", drowned, mcp_drowned)
assert drowned[1] >= 1
assert mcp_drowned[1] >= 1
assert mcp_drowned[2] > 0.9 * drowned[2]

# %%
# Why, is seen in the two proxes. The lasso's never returns to the diagonal: what it keeps stays too small by λ.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
z = torch.linspace(-3, 3, 301, dtype=torch.float64)
left.plot(z, z, ":", color="gray")
left.plot(z, ts.L1(0.8).prox(z, 1.0), label="lasso")
left.plot(z, ts.MCP(0.8, gamma=2.0).prox(z, 1.0), label="MCP")
left.set(xlabel="weight before the prox", ylabel="weight after it")
left.legend()
places = torch.arange(2)
right.bar(places - 0.2, [lasso[2], drowned[2]], 0.4, label="lasso")
right.bar(places + 0.2, [mcp[2], mcp_drowned[2]], 0.4, label="MCP")
right.set(xticks=[0, 1], xticklabels=["little noise", "much noise"], ylabel="distance to the true weights")
right.legend()
figure.savefig("mcp_against_lasso.svg")
