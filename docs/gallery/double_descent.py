"""Double descent, tamed

Make a model wider and wider. Its error on other rows falls, then rises to a peak where it has as many weights as rows,
and falls again. The peak looks like a law of nature. It is what happens without a penalty.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import torchshrink as ts

X, y = (torch.tensor(part) for part in load_diabetes(return_X_y=True))
X, y = (X - X.mean(0)) / X.std(0), ((y - y.mean()) / y.std())[:, None]
order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
rows = 100
fold = [(order[:rows].numpy(), order[rows:].numpy())]  # 100 rows to learn from, 342 to judge

# %%
# A random layer of any width, which is not trained, and a linear layer on top of it, which is. So each model has one
# minimum, and `ts.path` computes it. Without a penalty it is the smallest of all weights that fit.

generator = torch.Generator().manual_seed(1)
directions = torch.randn(10, 800, generator=generator, dtype=torch.float64) / 10**0.5
features = torch.relu(X @ directions)

widths = [5, 10, 20, 40, 70, 90, 100, 110, 130, 200, 400, 800]
curves = []
for width in widths:
    data = features[:, :width] / width**0.5, y

    def build(width=width):
        return nn.Linear(width, 1, dtype=torch.float64)

    result = ts.path(build, data, ts.L2, strengths=[0.01, 0.1], folds=fold, repeats=1, progress=False)
    curves.append([point.validation_loss for point in result.points])
without, weak, strong = torch.tensor(curves).T

# %%
# Without a penalty the loss at 100 weights, one for each row, is many times that of the best width. With one strength
# for all widths there is no peak: the loss hardly ever rises from a width to a larger one, and the widest is the best.

at_rows = widths.index(rows)
assert without[at_rows] == without.max() > 10 * without.min()
assert (weak / weak.cummin(0).values).max() < 1.05
assert weak[-1] < without.min()

# %%
# Ten times that strength tames the peak as well, and costs something: the curve lies higher than it needs to. A
# strength has to be chosen. We chose none here, so that the rows that judge have chosen nothing.

assert (strong / strong.cummin(0).values).max() < 1.05
assert strong[-1] > weak[-1]

figure, axes = plt.subplots(figsize=(6.4, 3.4))
axes.loglog(widths, without, "o-", label="no penalty")
axes.loglog(widths, weak, "o-", label="ts.L2(0.01)")
axes.loglog(widths, strong, "o-", label="ts.L2(0.1)")
axes.axvline(rows, linestyle=":", color="gray")
axes.set(xlabel="weights (there are 100 rows)", ylabel="loss on other rows")
axes.legend()
figure.savefig("double_descent.svg")
