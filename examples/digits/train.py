"""Train the digits net and export it: run by hand, needs the extras ``torch`` and ``tune``.

    pip install -e ".[torch,tune]" && python examples/digits/train.py

The data are scikit-learn's bundled 8x8 handwritten digits; the last 360 of them are held out and
never seen in training. Everything is seeded: the same versions write the same files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
HELD_OUT = 360
EPOCHS, BATCH, SEED = 60, 64, 7


class Digits(nn.Module):
    """Two convolutions with batch norm, one without, two dense layers: about 12 000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classify = nn.Sequential(nn.Linear(128, 48), nn.ReLU(), nn.Linear(48, 10))

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities ``[batch, 10]`` of images ``[batch, 1, 8, 8]`` with values 0 to 1."""
        return torch.softmax(self.scores(image), dim=-1)

    def scores(self, image: Tensor) -> Tensor:
        return self.classify(torch.flatten(self.features(image), 1))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 10 degrees, scaled by 10 % and moved by a pixel, at random."""
    draw = torch.rand(4, len(images), generator=generator) * 2 - 1
    angle, scale, dx, dy = draw[0] * 0.17, 1 + draw[1] * 0.1, draw[2] / 4, draw[3] / 4
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrices = torch.stack([torch.stack([cos, -sin, dx], 1), torch.stack([sin, cos, dy], 1)], 1)
    grid = nn.functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def train(images: Tensor, labels: Tensor) -> Digits:
    """Adam with a cosine schedule."""
    generator = torch.Generator().manual_seed(SEED)
    model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order.split(BATCH):
            batch = augmented(images[chosen], generator)
            loss = nn.functional.cross_entropy(model.scores(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def export(model: Digits, path: Path) -> None:
    """Write ONNX with a symbolic batch, without the exporter's notes on nodes (local paths)."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "the exporter returns a program"
    for node in program.model.graph:
        node.metadata_props.clear()
    program.save(str(path))


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    labels = data.target.astype(np.int64)
    model = train(torch.from_numpy(images[:-HELD_OUT]), torch.from_numpy(labels[:-HELD_OUT]))
    with torch.no_grad():
        guesses = model(torch.from_numpy(images[-HELD_OUT:])).argmax(1).numpy()
    print(f"held-out accuracy: {np.mean(guesses == labels[-HELD_OUT:]):.2%}")
    export(model, HERE / "digits.onnx")
    np.savez_compressed(
        HERE / "images.npz", images=images[-HELD_OUT:], labels=labels[-HELD_OUT:].astype(np.uint8)
    )


if __name__ == "__main__":
    main()
