"""Fine-tuning with L2SP

A network knows handwritten digits. Now they come from another scanner, with 60 labelled images in all. L2 pulls its
weights towards zero, away from what it knows. L2SP pulls them towards where they were. We try two scanners: one that
adds noise, and one whose images look quite different.
"""

import copy

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import torchshrink as ts

digits = load_digits()
X, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
noise = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
scanners = {"a little noise": 0.7 * X + 0.2 * noise, "quite different": 0.3 * (1 - X) + 0.7 * X**2 + 0.1 * noise}
order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
source, few, test = order[:1000], order[1000:1060], order[1060:]


def train(model, X, y, steps, penalty):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with ts.Regularizer(model, penalty).attach(optimizer):
        for _ in range(steps):
            optimizer.zero_grad()
            cross_entropy(model(X), y).backward()
            optimizer.step()
    return model


torch.manual_seed(0)
known = train(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), X[source], y[source], 200, ts.L2(1e-4))

# %%
# A regularizer remembers the weights that it finds when it is made. So it is made after they are loaded.


def losses(seen):
    """On the other images: as it is, fine-tuned without a penalty, with L2, with L2SP."""
    fitted = [known]
    for penalty in (ts.L2(0.0), ts.L2(1e-2), ts.L2SP(1e-2)):
        fitted.append(train(copy.deepcopy(known), seen[few], y[few], 120, penalty))
    with torch.no_grad():
        return [cross_entropy(model(seen[test]), y[test]).item() for model in fitted]


near, far = (losses(seen) for seen in scanners.values())
print(near, far)

# %%
# With a little noise the network is good as it is, and fine-tuning on 60 images makes it *worse*: it learns them by
# heart. L2 makes it worse still. With L2SP it gets better, though not by much.

as_it_is, plain, l2, l2sp = near
assert plain > as_it_is
assert l2 > plain
assert l2sp < 0.95 * plain
assert l2sp < as_it_is

# %%
# Where the images look quite different, the network has to move, and what it knows is of less use. All of the gain
# comes from fine-tuning, and L2SP changes little.

as_it_is, plain, l2, l2sp = far
assert plain < 0.7 * as_it_is
assert 0.85 < l2sp / plain < 1.1

figure, axes = plt.subplots(figsize=(6.4, 3.2))
for place, bars in enumerate((near, far)):
    for offset, (label, loss) in enumerate(zip(("as it is", "no penalty", "L2", "L2SP"), bars)):
        axes.bar(5 * place + offset, loss, color=f"C{place}", alpha=0.4 + 0.2 * offset)
        axes.text(5 * place + offset, loss, label, ha="center", va="bottom")
axes.set(xticks=[1.5, 6.5], xticklabels=scanners, ylabel="loss on other images")
figure.savefig("fine_tuning_l2sp.svg")
