"""A sparse autoencoder

An autoencoder turns an image into a code and draws it again. With L1 on the *activations* of the code, each image is
told by few units of many. The picture has what that costs, and what the four units that are used most draw.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import mse_loss

import torchshrink as ts

X = torch.tensor(load_digits().data / 16, dtype=torch.float32)
train, test = X[:1300], X[1300:]


def fit(strength, epochs=20):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    decoder = ts.Regularizer(model, {"2.weight": ts.L2(3e-5)})  # without it, large weights would do for small codes
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with decoder.attach(optimizer), ts.Activations(model, {"1": ts.L1(strength)}) as code:
        for _ in range(epochs):
            for rows in torch.randperm(len(train)).split(100):
                optimizer.zero_grad()
                loss = mse_loss(model(train[rows]), train[rows]) + code.value()
                loss.backward()
                optimizer.step()
    return model


def error_and_active(model):
    with torch.no_grad():
        code = model[:2](test)
        return mse_loss(model(test), test).item(), (code > 0).float().sum(1).mean().item()


# %%
# `ts.Activations` listens to what a module computes. Its value, a mean over the examples, is a term of the loss.

strengths = [0.0, 3e-4, 1e-3, 3e-3]
models = [fit(strength) for strength in strengths]
errors, active = zip(*map(error_and_active, models))
for row in zip(strengths, active, errors):
    print("strength {:g}: {:.1f} of 128 units active, error {:.4f}".format(*row))

assert list(active) == sorted(active, reverse=True)
assert active[2] < active[0] / 2
assert errors[2] > errors[0]

# %%
# Few active units have a price: the drawing becomes less exact. No strength is right by itself; it depends on what the
# code is for. Of such codes it is often said that units become parts which a person can name. Judge by these four.

figure, (left, *right) = plt.subplots(1, 5, figsize=(8.4, 2.6), width_ratios=[2.4, 1, 1, 1, 1])
left.plot(active, errors, "o-")
left.set(xlabel="units active, of 128", ylabel="error on other images")
parts = models[2][2].weight.detach().T
with torch.no_grad():
    used = models[2][:2](test).mean(0).argsort(descending=True)
for axes, unit in zip(right, used):
    axes.imshow(parts[unit].reshape(8, 8).numpy(), cmap="PuOr", vmin=-0.5, vmax=0.5)
    axes.set_axis_off()
figure.savefig("sparse_autoencoder.svg")
