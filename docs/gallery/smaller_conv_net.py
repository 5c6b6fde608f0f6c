"""A convolutional network that becomes smaller

A network that reads 8 × 8 digits has two layers of 16 filters and a hidden layer of 64. It is trained as usual. Then
the group lasso takes whole filters and units away, and `ts.shrink` makes a smaller network of it with the same outputs.
"""

import copy

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import torchshrink as ts

digits = load_digits()
X = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
y = torch.tensor(digits.target)
order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
train, test = order[:1300], order[1300:]

torch.manual_seed(0)
trained = nn.Sequential(
    nn.Conv2d(1, 16, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Conv2d(16, 16, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(16 * 16, 64),
    nn.ReLU(),
    nn.Linear(64, 10),
)


# %%
# A group is what goes as a whole: here a filter, and a unit of the hidden layer, each a row of its weight. The last
# layer is left alone, since its rows are the ten classes.


def fit(model, strength, epochs):
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    rules = {"7.weight": None, "*.weight": ts.GroupLasso(strength)}
    with ts.Regularizer(model, rules).attach(optimizer):
        for _ in range(epochs):
            for rows in train[torch.randperm(len(train))].split(64):
                optimizer.zero_grad()
                cross_entropy(model(X[rows]), y[rows]).backward()
                optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model):
    with torch.no_grad():
        return (model(X[test]).argmax(1) == y[test]).double().mean().item()


fit(trained, 0.0, epochs=8)
strengths = [0.0, 2e-3, 4e-3]
models = [trained] + [fit(copy.deepcopy(trained), strength, epochs=12) for strength in strengths[1:]]
shrunk = [ts.shrink(model, X[:2]) for model in models]
sizes = [each.parameters[1] for each in shrunk]
accuracies = [accuracy(each.model) for each in shrunk]
for row in zip(strengths, sizes, accuracies):
    print("strength {:g}: {:,} parameters, {:.1%} right".format(*row))

# %%
# Without a penalty nothing can go. With it, less than half of the parameters are left at the cost of at most four
# digits in a hundred, and with twice the strength less than a quarter. Cutting itself changes no output beyond
# rounding: what accuracy is lost, training lost.

assert sizes[0] == shrunk[0].parameters[0]
assert sizes == sorted(sizes, reverse=True)
assert sizes[1] < sizes[0] / 2
assert sizes[2] < sizes[0] / 4
assert accuracies[1] > accuracies[0] - 0.04
assert all(each.difference < 1e-9 for each in shrunk)

# %%
# The picture has both sides. Where too many filters are gone, digits are misread: how much of that is worth it, is for
# you to say, and a [path](../path.md) says it with folds. The network was trained first for a reason: from initial
# weights, such strengths take everything away before anything is learnt.

figure, axes = plt.subplots(figsize=(5.6, 3.2))
axes.plot(sizes, [100 * share for share in accuracies], "o-")
for strength, size, share in zip(strengths, sizes, accuracies):
    axes.annotate(f"λ = {strength:g}", (size, 100 * share), textcoords="offset points", xytext=(6, -12))
axes.margins(y=0.15)
axes.set(xlabel="parameters after shrinking", ylabel="right on other digits, %", xlim=(0, 1.3 * sizes[0]))
figure.savefig("smaller_conv_net.svg")
