"""Segment the Greek coins on the arrays of one library, and save a picture of the regions.

Runs in the environment of the forks: nox -s demo -- --xp numpy --scale 0.2 --labels cluster_qr
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coins import Backend, Segmentation
    from traffic import Traffic


def draw(axes: Any, image: Any, labels: Any, title: str) -> None:
    """Draw the contour of each region over the image; both are NumPy arrays of one shape."""
    import matplotlib.pyplot as plt

    count = int(labels.max()) + 1
    axes.imshow(image, cmap="gray")
    for region in range(count):
        color = plt.get_cmap("nipy_spectral")(region / count)
        axes.contour(labels == region, levels=[0.5], colors=[color], linewidths=1)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)


def picture(path: Path, image: Any, labels: Any, title: str) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    draw(axes, image, labels, title)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def summary(backend: Backend, found: Segmentation, traffic: Traffic | None) -> dict[str, Any]:
    """Return what is printed; bytes are None where they cannot be counted."""
    return {
        "namespace": backend.name,
        "device": str(backend.device),
        "shape": list(found.image.shape),
        "seconds": found.seconds,
        "total_seconds": sum(found.seconds.values()),
        "host_to_device_bytes": traffic and traffic.to_device,
        "device_to_host_bytes": traffic and traffic.to_host,
        "largest_device_to_host_bytes": traffic and traffic.largest_to_host,
    }


def show(facts: dict[str, Any]) -> None:
    height, width = facts["shape"]
    print(f"{facts['namespace']} on {facts['device']}, {height} x {width} pixels")
    for stage, value in facts["seconds"].items():
        print(f"  {stage:12}{value:10.3f} s")
    print(f"  {'all':12}{facts['total_seconds']:10.3f} s")
    if facts["device_to_host_bytes"] is None:
        print("  host and device: bytes not counted, libcupti was not found")
    else:
        print(
            f"  host to device: {facts['host_to_device_bytes']:,} bytes, device to host: "
            f"{facts['device_to_host_bytes']:,} bytes, "
            f"{facts['largest_device_to_host_bytes']:,} at most at once"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--xp", default="numpy", help="numpy, cupy, torch or array-api-strict")
    parser.add_argument("--device", help="as the library names it")
    parser.add_argument("--scale", type=float, default=0.2, help="0 to 1")
    parser.add_argument("--labels", default="cluster_qr", help="discretize, kmeans or cluster_qr")
    parser.add_argument("--output", type=Path, help="the picture (coins-….png)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    if options.xp != "numpy":
        # Read when SciPy is imported, which is why the imports below come late.
        os.environ["SCIPY_ARRAY_API"] = "1"

    import coins
    from traffic import count_traffic

    if options.xp not in coins.NAMESPACES:
        parser.error(f"--xp is one of {', '.join(coins.NAMESPACES)}")
    if options.labels not in coins.LABELS:
        parser.error(f"--labels is one of {', '.join(coins.LABELS)}")
    if not 0 < options.scale <= 1:
        parser.error("--scale is above 0, and at most 1")
    try:
        backend = coins.make_backend(options.xp, options.device)
        coins.check_size(backend, options.scale)
        with count_traffic(backend) as traffic:
            found = coins.segment(backend, scale=options.scale, labels=options.labels)
    except (coins.UnusableError, TypeError) as error:
        print(f"demo: {error}", file=sys.stderr)
        raise SystemExit(7) from error
    facts = summary(backend, found, traffic)
    facts |= {"scale": options.scale, "labels": options.labels}
    show(facts)
    name = f"coins-{options.xp}-{options.labels}-{options.scale:g}.png"
    path = options.output or Path(name)
    title = f"{options.labels}, {options.xp} on {backend.device}"
    image, labels = (backend.to_numpy(a) for a in (found.image, found.labels))
    picture(path, image, labels, title)
    print(f"  {path}")
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
