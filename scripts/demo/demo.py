"""Segment the Greek coins on the arrays of one library, and save a picture of the regions.

Runs in the environment of the forks: nox -s demo -- --xp numpy --scale 0.2 --labels cluster_qr
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coins import Backend, Segmentation
    from traffic import Traffic


# scikit-learn's example computes three more than its 26, which leave out two of the coins.
REGIONS = 29
COINS = 24
REFUSAL = r"[Ss]upported are|(does|is|are)(n't| not) support|no sparse arrays|works on NumPy arrays"


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


def title(backend: Backend, facts: dict[str, Any]) -> str:
    height, width = facts["shape"]
    return (
        f"{facts['regions']} regions by {facts['labels']}, {height} x {width} pixels, "
        f"{facts['total_seconds']:.2f} s\n{backend.name} on {backend.device}: "
        f"{facts['coins']} of {COINS} coins found"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--xp", default="numpy", help="numpy, cupy, torch or array-api-strict")
    parser.add_argument("--device", help="as the library names it")
    parser.add_argument("--scale", type=float, default=0.2, help="0 to 1")
    parser.add_argument("--labels", default="cluster_qr", help="discretize, kmeans or cluster_qr")
    parser.add_argument("--regions", type=int, default=REGIONS)
    parser.add_argument("--output", type=Path, help="the picture (coins-….png)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    if options.xp != "numpy":
        # Read when SciPy is imported, which is why the imports below come late.
        os.environ["SCIPY_ARRAY_API"] = "1"

    import coins
    import picture
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
            choice = {"labels": options.labels, "regions": options.regions}
            found = coins.segment(backend, scale=options.scale, **choice)
    except (coins.UnusableError, TypeError) as error:
        # The forks say what is supported; any other TypeError is a fault, of theirs or of ours.
        if isinstance(error, TypeError) and not re.search(REFUSAL, str(error)):
            raise
        print(f"demo: {error}", file=sys.stderr)
        raise SystemExit(7) from error
    facts = summary(backend, found, traffic)
    facts |= {"scale": options.scale, **choice}
    show(facts)
    path = options.output or Path(f"coins-{options.xp}-{options.labels}-{options.scale:g}.png")
    image, labels = (backend.to_numpy(a) for a in (found.image, found.labels))
    facts["coins"] = picture.count_coins(image, labels)
    picture.save(path, image, labels, title(backend, facts))
    print(f"  {facts['coins']} of {COINS} coins found\n  {path}")
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
