"""Writes torch-golden.json: the weights after every step of PyTorch's optimizers, and its OneCycleLR, in float64.

Run: python torch-golden.py  (made with the torch version named in the JSON). The tests read the JSON only.
The gradient at step k is grad[k], given; so what is compared is the update rule alone.
"""

import json
import pathlib

import torch

STEPS = 10
START = [0.5, -1.25, 2.0, 0.125]


def gradient(step):
    """A fixed sequence of gradients with large and small entries."""
    return [((7 * step + 3 * i) % 11 - 5) / (4.0 ** i) for i in range(4)]


def weights(make):
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = make([w])
    rows = []
    for step in range(STEPS):
        w.grad = torch.tensor(gradient(step), dtype=torch.float64)
        optimizer.step()
        rows.append(w.detach().tolist())
    return rows


def one_cycle(total):
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=total)
    rows = []
    for _ in range(total):
        group = optimizer.param_groups[0]
        rows.append([group["lr"], group["momentum"]])
        optimizer.step()
        if len(rows) < total:
            schedule.step()
    return rows


optim = torch.optim
golden = {
    "torch": torch.__version__,
    "start": START,
    "gradients": [gradient(step) for step in range(STEPS)],
    "weights": {
        "sgd": weights(lambda p: optim.SGD(p, lr=0.1)),
        "momentum": weights(lambda p: optim.SGD(p, lr=0.1, momentum=0.9)),
        "nesterov": weights(lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
        "adam": weights(lambda p: optim.Adam(p, lr=0.01)),
        "adamBetas": weights(lambda p: optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-3)),
        "adamw": weights(lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1)),
    },
    "oneCycle": one_cycle(40),
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, indent=1) + "\n")
