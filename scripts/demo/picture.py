"""The picture of the regions, and how many of the coins have a region of their own."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from skimage.filters import threshold_local
from skimage.measure import label

# Below this share of pixels in coins a region is background.
BACKGROUND = 0.1


def find_coins(image: np.ndarray) -> np.ndarray:
    """Return the coins, numbered from 1: all that is brighter than its surroundings."""
    width = image.shape[1]
    bright = image > threshold_local(image, width // 8 * 2 + 1, offset=-0.02)
    bright = scipy.ndimage.binary_fill_holes(bright)
    return label(scipy.ndimage.binary_opening(bright, iterations=max(1, width // 60)))


def background(coins: np.ndarray, labels: np.ndarray) -> list[int]:
    """Return the regions that have no coin."""
    shares = scipy.ndimage.mean(coins > 0, labels, range(int(labels.max()) + 1))
    return [region for region, share in enumerate(shares) if share < BACKGROUND]


def count_coins(image: np.ndarray, labels: np.ndarray) -> int:
    """Count the regions that hold most of a coin; two coins in one region count once."""
    coins = find_coins(image)
    owners = {np.bincount(labels[coins == coin]).argmax() for coin in range(1, coins.max() + 1)}
    return len(owners - set(background(coins, labels)))


def border(labels: np.ndarray) -> list[Any]:
    """Return the edges between pixels of different regions, as line segments."""
    rows, columns = np.nonzero(labels[1:] != labels[:-1])
    lines = [((x - 0.5, y + 0.5), (x + 0.5, y + 0.5)) for y, x in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(labels[:, 1:] != labels[:, :-1])
    lines += [((x + 0.5, y - 0.5), (x + 0.5, y + 0.5)) for y, x in zip(rows, columns, strict=True)]
    return lines


def draw(axes: Any, image: Any, labels: Any, title: str) -> None:
    """Fill the regions with distinct hues over the image, and leave the background grey."""
    from matplotlib.collections import LineCollection

    colors = np.zeros((*labels.shape, 4))
    filled = set(range(int(labels.max()) + 1)) - set(background(find_coins(image), labels))
    # Evenly spaced, in an order in which regions that are close in number differ.
    hues = np.argsort(np.argsort(np.arange(len(filled)) * 0.618 % 1)) / max(len(filled), 1)
    for hue, region in zip(hues, sorted(filled), strict=True):
        colors[labels == region] = (*colorsys.hsv_to_rgb(hue, 0.9, 1.0), 0.45)
    axes.imshow(image, cmap="gray")
    axes.imshow(colors)
    axes.add_collection(LineCollection(border(labels), colors="white", linewidths=0.7))
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)


def save(path: Path, image: Any, labels: Any, title: str) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    draw(axes, image, labels, title)
    figure.savefig(path, dpi=120)
    plt.close(figure)
