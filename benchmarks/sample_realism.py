"""Compare the sample radiographs with real ones in five numbers each.

    python -m benchmarks.sample_realism --real FOLDER_OF_REAL_PNGS [--sample images]

Prints the mean, standard deviation, 5 % and 95 % grey level and the slope of the radial power spectrum of both sets,
and whether the sample's median lies within the real images' 5th to 95th percentile.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

SIZE = 256  # both sets are compared at this size
MEASURES = ("mean", "standard deviation", "5 % grey level", "95 % grey level", "spectrum slope")


def measure(image: np.ndarray) -> tuple[float, ...]:
    """The five numbers of one uint8 image, (SIZE, SIZE)."""
    low, high = np.percentile(image, [5, 95])
    return float(image.mean()), float(image.std()), float(low), float(high), spectrum_slope(image)


def spectrum_slope(image: np.ndarray) -> float:
    """Slope of log power over log radial frequency, between 4 and 100 cycles per image (Hann window)."""
    n = image.shape[0]
    window = np.outer(np.hanning(n), np.hanning(n))
    power = np.abs(np.fft.fftshift(np.fft.fft2((image - image.mean()) * window))) ** 2
    axis = np.arange(n) - n // 2
    radius = np.round(np.hypot(axis[:, None], axis[None, :])).astype(int)
    profile = np.bincount(radius.ravel(), power.ravel()) / np.bincount(radius.ravel())
    band = np.arange(4, 101)
    return float(np.polyfit(np.log(band), np.log(profile[band] + 1e-9), 1)[0])


def measure_folder(folder: Path, limit: int) -> np.ndarray:
    """The five numbers of up to `limit` PNGs of a folder, evenly chosen by name: float (n, 5)."""
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise SystemExit(f"{folder}: no PNG files found")
    rows = []
    for path in paths[:: max(1, len(paths) // limit)]:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        rows.append(measure(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)))
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder of real frontal chest radiographs (PNG)")
    parser.add_argument("--sample", type=Path, default=Path("images"), help="folder of the sample (default: images)")
    parser.add_argument("--limit", type=int, default=400, help="images measured per folder (default: 400)")
    args = parser.parse_args()
    real, sample = (measure_folder(folder, args.limit) for folder in (args.real, args.sample))
    print(f"{len(real)} real and {len(sample)} sample images at {SIZE} x {SIZE}; 5th, 50th and 95th percentile of each")
    print(f"{'':<20}{'real':^27}{'sample':^27}  sample inside real 5-95 %")
    for name, a, b in zip(MEASURES, real.T, sample.T, strict=True):
        low, middle, high = np.percentile(a, [5, 50, 95])
        inside = float(np.mean((b >= low) & (b <= high)))
        verdict = "median inside" if low <= np.median(b) <= high else "MEDIAN OUTSIDE"
        spread = "".join(f"{value:9.2f}" for value in (low, middle, high, *np.percentile(b, [5, 50, 95])))
        print(f"{name:<20}{spread}  {verdict}, {inside:.0%} of the images")


if __name__ == "__main__":
    main()
