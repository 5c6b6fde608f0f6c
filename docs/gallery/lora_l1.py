"""LoRA with L1: how much of the adapters is needed?

LoRA leaves a trained model as it is and adds to each layer W a product B·A of low rank, here 16. With L1 on A, numbers
of A that are not needed become zero. It is on A alone, since B begins at zero: with a penalty on both, A = B = 0 would
be a resting place, and every adapter might switch itself off.
"""

import matplotlib.pyplot as plt
import peft
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import torchshrink as ts

digits = load_digits()
X, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
turned = X.reshape(-1, 8, 8).rot90(1, (1, 2)).flatten(1)
train, test = slice(0, 1300), slice(1300, None)


def descend(model, X, steps, penalty, on):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    with ts.Regularizer(model, penalty, on=on).attach(optimizer):
        for _ in range(steps):
            rows = torch.randint(1300, (100,))
            optimizer.zero_grad()
            cross_entropy(model(X[train][rows]), y[train][rows]).backward()
            optimizer.step()


def accuracy(model, X):
    with torch.no_grad():
        return (model(X[test]).argmax(1) == y[test]).double().mean().item()


# %%
# A network that knows digits has to learn them turned by a quarter. Two of its layers get adapters.


def pretrained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    descend(model, X, 300, ts.L2(1e-4), ts.WEIGHTS)
    return model


def adapted(strength):
    model = peft.get_peft_model(pretrained(), peft.LoraConfig(r=16, target_modules=["0", "2"]))
    descend(model, turned, 250, ts.L1(strength), "*lora_A*")
    return model.eval()


strengths = [0.0, 1e-3, 1e-2]
models = [adapted(strength) for strength in strengths]
factors = [[value for name, value in model.named_parameters() if "lora_A" in name] for model in models]
shares = [torch.cat([(factor != 0).flatten() for factor in pair]).double().mean().item() for pair in factors]
right = [accuracy(model, turned) for model in models]
print("before:", accuracy(pretrained(), turned), "after:", right, "share of A that is not zero:", shares)

# %%
# Without adapters the turned digits are not recognised. With them most are. A good part of A can be zero while as many
# are right, give or take a few in a hundred; with ten times the strength more is zero, and more is wrong.

assert accuracy(pretrained(), turned) < 0.4
assert right[0] > 0.75
assert shares[0] == 1
assert shares[2] < shares[1] < 0.8
assert right[1] > right[0] - 0.06
assert right[2] < right[0]

# %%
# What L1 does not give is a lower rank: at the weaker strength every row of A keeps something. The zeros make the
# adapter's file smaller when it is compressed, and the layer no faster.

assert all((factor != 0).any(1).all() for factor in factors[1])

figure, axes = plt.subplots(figsize=(5.6, 3))
axes.plot([100 * share for share in shares], [100 * share for share in right], "o-")
for strength, x, height in zip(strengths, shares, right):
    axes.annotate(f"λ = {strength:g}", (100 * x, 100 * height), textcoords="offset points", xytext=(4, -12))
axes.margins(y=0.15)
axes.set(xlabel="numbers of A that are not zero, %", ylabel="right on other turned digits, %", xlim=(0, 115))
figure.savefig("lora_l1.svg")
