"""Training steps in PyTorch, the rival: reads `STEPS` lines, answers milliseconds per step.

usage: step.py NETWORK LAYOUT THREADS    NETWORK mlp | resnet20, LAYOUT nchw | channels_last
"""
import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

network, layout, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(0)
torch.set_num_threads(threads)
BATCH = 128


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.projection = None
        if stride != 1 or inputs != outputs:
            self.projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y + (x if self.projection is None else self.projection(x)), inplace=True)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        blocks, inputs = [], 16
        for outputs, stride in ((16, 1), (32, 2), (64, 2)):
            for index in range(3):
                blocks.append(Block(inputs, outputs, stride if index == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.norm(self.conv(x)), inplace=True)).mean((2, 3)))


if network == 'mlp':
    model = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
    x = torch.randn(BATCH, 784)
else:
    model = ResNet20()
    x = torch.randn(BATCH, 3, 32, 32)
if layout == 'channels_last':
    model = model.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
y = torch.randint(0, 10, (BATCH,))


def optimizer():
    try:
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, foreach=True)
    except TypeError:
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


update = optimizer()


def step():
    update.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    update.step()
    return loss.item()


print(json.dumps({'torch': torch.__version__, 'threads': torch.get_num_threads()}), flush=True)
for line in sys.stdin:
    count = int(line)
    start = time.perf_counter()
    for _ in range(count):
        step()
    print(json.dumps({'ms': (time.perf_counter() - start) / count * 1e3}), flush=True)
