"""MNIST in PyTorch's eager mode: `python pytorch_mnist.py FOLDER` prints the test accuracy.

The pixels stay uint8 and a batch is made float32, Adam is the fused one, the rate follows a cosine.
"""

import sys

import torch
from mnist import BATCH, EPOCHS, HIDDEN, RATE, load
from torch import nn

X, y, X_test, y_test = map(torch.from_numpy, load(sys.argv[1]))
y, y_test = y.long(), y_test.long()
torch.manual_seed(0)
layers: list[nn.Module] = []
for fan_in, units in zip((784, *HIDDEN), (*HIDDEN, 10), strict=True):
    layers += [nn.Linear(fan_in, units), nn.ReLU()]
network = nn.Sequential(*layers[:-1])
optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(X) // BATCH))
for _ in range(EPOCHS):
    for rows in torch.randperm(len(X)).split(BATCH):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(network(X[rows].float() / 255), y[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
with torch.inference_mode():
    print((network(X_test.float() / 255).argmax(1) == y_test).float().mean().item())
