"""Which columns of a table matter?

A table of 569 tumours has 30 measurements of each. We take 150 rows, as a small study would, and let L1 find the
measurements that a logistic regression needs. The other 419 rows are looked at once, at the end.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

import torchshrink as ts

table = load_breast_cancer()
X, y = torch.tensor(table.data), torch.tensor(table.target)
order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
train, test = order[:150], order[150:]


def build():
    return ts.models.mlp(30, 2, hidden=())  # standardises the columns, then one linear layer


# %%
# A path tries many strengths in five folds. The model is linear, so each optimum is computed, and nothing is trained.
# We take the strongest penalty whose loss is within one standard error of the best.

result = ts.path(build, (X[train], y[train]), ts.L1, strengths=20, repeats=1, progress=False)
model, certificate = result.refit(result.one_se)
plain, _ = result.refit(0.0)

# %%
# What is left? An input is used where a weight that reads it is not zero.

weight = model.output.weight.detach()
used = (weight != 0).any(0)
for name, size in sorted(zip(table.feature_names[used.numpy()], weight[1, used].tolist()), key=lambda pair: pair[1]):
    print(f"{name:25} {size:+.2f}")


def loss_and_accuracy(model):
    with torch.no_grad():
        output = model(X[test])
    return nn.functional.cross_entropy(output, y[test]).item(), (output.argmax(1) == y[test]).double().mean().item()


# %%
# Fewer than half of the columns are used. On the rows that nobody looked at the loss is much lower than without a
# penalty; as many tumours are told apart, give or take two in a hundred.

assert 1 <= used.sum() < 15
before, after = loss_and_accuracy(plain), loss_and_accuracy(model)
assert after[0] < 0.7 * before[0]
assert after[1] > before[1] - 0.02
assert certificate.gap < 1e-6

# %%
# Which of several columns that say nearly the same is kept, is a matter of luck: radius, perimeter and area of a tumour
# are such a group. A column that is gone is not a column without meaning.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=[3, 2])
points = result.points[1:]
left.semilogx([point.strength for point in points], [point.validation_loss for point in points], label="held out")
left.semilogx([point.strength for point in points], [point.train_loss for point in points], label="trained on")
left.axvline(result.one_se.strength, linestyle=":", color="gray")
left.set(xlabel="strength of L1", ylabel="loss")
left.legend()
right.barh(table.feature_names[used.numpy()], weight[1, used].tolist())
right.set(xlabel="weight: malignant ← → benign")
figure.savefig("feature_selection.svg")
