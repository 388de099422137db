"""Writes kfac-golden.json: losses, clipped P and weights of K-FAC with momentum, on a small CNN, by PyTorch in float64.

Run: python kfac-golden.py  (made with the torch version named in the JSON). The tests read the JSON only.
Written from the equations, without Frugal's code: patches by unfold, gradients of outputs by hooks. Weights and inputs are
laid out as in TensorFlow: HWIO, [in, out], NHWC. Batches take turns.

  A = 1/B sum_b sum_t a a^T, a = (patch [kh, kw, C], 1);  G = 1/(B T) sum_b sum_t g g^T, g of one example's loss
  averages: alpha = min(1 - 1/k, decay);  P = Q_A ((Q_A^T D Q_G) / (l_A l_G^T + damping)) Q_G^T
  nu = min(1, sqrt(kappa / (rate^2 sum P*D)));  v <- momentum v + nu P;  w <- w - rate v
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)

STEPS, BATCHES, BATCH, SIZE, CHANNELS, CLASSES = 20, 3, 8, 7, 2, 4
DAMPING, DECAY, KAPPA, MOMENTUM = 0.01, 0.95, 1e-3, 0.9
FACTOR_EVERY, INVERSE_EVERY = 2, 4
RECORDED = [0, 3, 11]


def rate(step):
    return 0.05 * (1 - step / 20) ** 2


def rounded(tensor):
    """Numbers that are the same in the JSON."""
    return torch.round(tensor * 1e4) / 1e4


inputs = rounded(torch.randn(BATCHES, BATCH, SIZE, SIZE, CHANNELS))
targets = torch.randint(0, CLASSES, (BATCHES, BATCH))
# The same images with other classes: so no loss comes near 0, where a relative error says little.
inputs[2] = inputs[0]
targets[2] = (targets[0] + 1) % CLASSES
start = {
    "same/kernel": rounded(0.3 * torch.randn(3, 3, CHANNELS, 3)),
    "same/bias": rounded(0.1 * torch.randn(3)),
    "strided/kernel": rounded(0.25 * torch.randn(3, 3, 3, 4)),
    "strided/bias": rounded(0.1 * torch.randn(4)),
    "head/kernel": rounded(0.2 * torch.randn(3 * 3 * 4, CLASSES)),
    "head/bias": rounded(0.1 * torch.randn(CLASSES)),
}
LAYERS = ["same", "strided", "head"]


class Net:
    """Forward pass that keeps, per layer, the rows a [B, T, n] and, when going back, the gradients of outputs [B, T, m]."""

    def __init__(self, weights):
        self.weights = weights
        self.rows, self.output_gradients = {}, {}

    def watch(self, name, y, channel_axis):
        def hook(gradient):
            moved = gradient.movedim(channel_axis, -1)
            self.output_gradients[name] = moved.reshape(moved.shape[0], -1, moved.shape[-1])

        y.register_hook(hook)
        return y

    def conv(self, name, x, stride, padding):
        kernel, bias = self.weights[name + "/kernel"], self.weights[name + "/bias"]
        kh, kw, channels, _ = kernel.shape
        patches = F.unfold(x.detach(), (kh, kw), padding=padding, stride=stride)
        batch, _, positions = patches.shape
        patches = patches.reshape(batch, channels, kh, kw, positions).permute(0, 4, 2, 3, 1)
        self.rows[name] = patches.reshape(batch, positions, kh * kw * channels)
        return self.watch(name, F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, stride=stride, padding=padding), 1)

    def forward(self, x):
        y = torch.tanh(self.conv("same", x.permute(0, 3, 1, 2), 1, 1))
        y = torch.relu(self.conv("strided", y, 2, 0))
        flat = y.permute(0, 2, 3, 1).reshape(x.shape[0], -1)
        self.rows["head"] = flat.detach()[:, None, :]
        return self.watch("head", flat @ self.weights["head/kernel"] + self.weights["head/bias"], 1)


weights = {name: value.clone().requires_grad_() for name, value in start.items()}
net = Net(weights)
factors, decompositions = {}, {}
velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
losses, factors_of_clip, preconditioned, updates = [], [], [], 0


def update_factors():
    global updates
    updates += 1
    alpha = min(1 - 1 / updates, DECAY)
    for name in LAYERS:
        rows = net.rows[name]
        batch, positions, _ = rows.shape
        a = torch.cat([rows, torch.ones(batch, positions, 1)], 2).reshape(batch * positions, -1)
        # The loss is a mean: one example's gradient is B times what comes back.
        g = batch * net.output_gradients[name].reshape(batch * positions, -1)
        new = (a.T @ a / batch, g.T @ g / (batch * positions))
        old = factors.get(name, new)
        factors[name] = tuple(alpha * o + (1 - alpha) * n for o, n in zip(old, new))


def precondition(name, gradient):
    (la, qa), (lg, qg) = decompositions[name]
    inner = (qa.T @ gradient @ qg) / (la.clamp(min=0)[:, None] * lg.clamp(min=0)[None, :] + DAMPING)
    return qa @ inner @ qg.T


for step in range(STEPS):
    for value in weights.values():
        value.grad = None
    k = step % BATCHES
    loss = F.cross_entropy(net.forward(inputs[k]), targets[k])
    loss.backward()
    losses.append(loss.item())
    with torch.no_grad():
        if step % FACTOR_EVERY == 0:
            update_factors()
        if step % INVERSE_EVERY == 0:
            decompositions = {name: tuple(torch.linalg.eigh(f) for f in factors[name]) for name in LAYERS}
        total, results = 0.0, {}
        for name in LAYERS:
            kernel, bias = weights[name + "/kernel"], weights[name + "/bias"]
            gradient = torch.cat([kernel.grad.reshape(-1, kernel.shape[-1]), bias.grad[None, :]], 0)
            p = precondition(name, gradient)
            total += (p * gradient).sum().item()
            results[name + "/kernel"], results[name + "/bias"] = p[:-1].reshape(kernel.shape), p[-1]
        nu = min(1.0, (KAPPA / (rate(step) ** 2 * total)) ** 0.5)
        factors_of_clip.append(nu)
        for name, value in weights.items():
            velocity[name] = MOMENTUM * velocity[name] + nu * results[name]
            value -= rate(step) * velocity[name]
        if step in RECORDED:
            preconditioned.append({name: (nu * p).flatten().tolist() for name, p in results.items()})

flat = lambda named: {name: value.detach().flatten().tolist() for name, value in named.items()}
golden = {
    "torch": torch.__version__,
    "shape": [BATCH, SIZE, SIZE, CHANNELS],
    "classes": CLASSES,
    "inputs": [batch.flatten().tolist() for batch in inputs],
    "targets": targets.tolist(),
    "start": flat(start),
    "losses": losses,
    "clip": factors_of_clip,
    "recorded": RECORDED,
    "preconditioned": preconditioned,
    "weights": flat(weights),
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden) + "\n")
