"""Measure what the running site costs beside the model alone, in one run on one machine.

    python -m benchmarks.bench_site [--model-path FILE] [--seconds 8] [--rounds 3] [--soak 2000]

The site and the model alone (decoded picture in, probabilities and heatmaps out) take turns in short phases, so that
whatever else the machine does falls on both; compare the ratios, not the milliseconds. One 1024 x 1024 PNG is posted
to the result page as a browser with script does. A client that gets 503 waits as long as `Retry-After` says. Clients
take processor time from the site that they ask; beside the rates stands what an answer costs site and clients each.
"""

import argparse
import http.client
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from cxr.inference.backend import choose_inference_backend

if __name__ == "__main__":
    choose_inference_backend()

from benchmarks.site_load import RunningSite
from cxr.anatomy.outline_model import OutlineModel
from cxr.imaging.radiograph import decode_radiograph
from cxr.inference.predictor import Predictor
from gradcam import ANATOMY_PATH, MODEL_PATH, explain

BORDER = "benchmark"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BORDER}"}


def make_picture() -> bytes:
    """Return a 1024 x 1024 PNG with the sharpness and noise of a radiograph, about 0.6 MB."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (40, 40), dtype=np.uint8)
    smooth = cv2.resize(coarse, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    noisy = smooth + generator.normal(0, 3, smooth.shape)
    return cv2.imencode(".png", np.clip(noisy, 0, 255).astype(np.uint8))[1].tobytes()


def make_form(picture: bytes) -> bytes:
    def part(name: str, content: bytes, more: str = "") -> bytes:
        return f'--{BORDER}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"

    return part("script", b"1") + part("file", picture, '; filename="chest.png"') + f"--{BORDER}--\r\n".encode()


class Client:
    """One visitor with a connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, form: bytes) -> tuple[int, float]:
        """Return status and seconds that the server asked to wait."""
        self._connection.request("POST", "/predict", form, HEADERS)
        response = self._connection.getresponse()
        response.read()
        return response.status, float(response.headers.get("Retry-After", 0))

    def health(self) -> None:
        self._connection.request("GET", "/healthz")
        self._connection.getresponse().read()


def repeat(act: Callable[[], object], seconds: float) -> list[float]:
    """Act again and again; return how long each took, in seconds."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return times


def crowd(port: int, form: bytes, num_clients: int, seconds: float) -> tuple[float, dict[int, int], list[float]]:
    """Post with many clients. Returns: answers (200) per second, count per status, seconds of each answer."""
    end = time.perf_counter() + seconds
    counts: dict[int, int] = {}
    times: list[float] = []

    def visit(_number: int) -> None:
        client = Client(port)
        while time.perf_counter() < end:
            start = time.perf_counter()
            status, wait = client.post(form)
            if status == 200:
                times.append(time.perf_counter() - start)
            counts[status] = counts.get(status, 0) + 1
            time.sleep(min(wait, max(0.0, end - time.perf_counter())))

    start = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as threads:
        list(threads.map(visit, range(num_clients)))
    return counts.get(200, 0) / (time.perf_counter() - start), counts, times


def model_rate(answer: Callable[[], object], num_threads: int, seconds: float) -> tuple[float, float]:
    """Return answers per second of the model alone, and its processor seconds per answer."""
    start, worked = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(num_threads) as threads:
        count = sum(threads.map(lambda _: len(repeat(answer, seconds)), range(num_threads)))
    return count / (time.perf_counter() - start), (time.process_time() - worked) / count


def watch_health(port: int, stop: threading.Event, times: list[float]) -> None:
    client = Client(port)
    while not stop.wait(0.05):
        start = time.perf_counter()
        client.health()
        times.append(time.perf_counter() - start)


def measure(site: RunningSite, args: argparse.Namespace) -> None:
    port = site.port
    picture = make_picture()
    form, radiograph = make_form(picture), decode_radiograph(picture)
    predictor = Predictor(args.model_path, side_by_side=True)

    outline_model = OutlineModel(ANATOMY_PATH)

    def answer() -> object:
        return explain(predictor, radiograph, outline_model=outline_model)

    def measure_rates() -> None:
        for num_callers, measured in rates.items():
            rate, cost = model_rate(answer, num_callers, args.seconds / 2)
            measured.append(rate)
            costs["model"].append(cost)

    def visit() -> list[float]:
        client = Client(port)  # anew for each phase: the server closes what is idle for long
        return repeat(lambda: client.post(form), args.seconds)

    visit()  # warm
    repeat(answer, 1)
    alone, single, eight, many, health = [], [], [], [], []
    rates: dict[int, list[float]] = {1: [], 2: []}  # callers at once -> answers per second
    counts: dict[int, int] = {}
    costs: dict[str, list[float]] = {"model": [], "site": [], "clients": []}  # processor seconds per answer
    for _ in range(args.rounds):
        alone += repeat(answer, args.seconds / 2)
        single += visit()
        alone += repeat(answer, args.seconds / 2)
        measure_rates()
        before = site.usage().cpu_seconds, time.process_time()
        rate, statuses, _ = crowd(port, form, 8, args.seconds)
        eight.append(rate)
        costs["site"].append((site.usage().cpu_seconds - before[0]) / statuses[200])
        costs["clients"].append((time.process_time() - before[1]) / statuses[200])
        stop = threading.Event()
        watcher = threading.Thread(target=watch_health, args=(port, stop, health))
        watcher.start()
        rate, statuses, _ = crowd(port, form, 64, args.seconds)
        stop.set()
        watcher.join()
        many.append(rate)
        counts = {status: counts.get(status, 0) + statuses.get(status, 0) for status in {*counts, *statuses}}
        measure_rates()
    model, request = statistics.median(alone), statistics.median(single)
    one_by_one, side_by_side = (statistics.mean(measured) for measured in rates.values())
    crowded, overloaded = statistics.mean(eight), statistics.mean(many)
    print(f"picture: 1024 x 1024 PNG, {len(picture) / 1e6:.2f} MB; model input {predictor.info.image_size}")
    print(f"model alone: p50 {1000 * model:.0f} ms; one by one {one_by_one:.1f}/s, side by side {side_by_side:.1f}/s")
    print(f"1 client: p50 {1000 * request:.0f} ms, {1000 * (request - model):+.0f} ms (target: at most +35 ms)")
    shares = f"{crowded / one_by_one:.0%} and {crowded / side_by_side:.0%}"
    print(f"8 clients: {crowded:.1f}/s, {shares} of the model's two rates (target: 85 %)")
    spent = {who: statistics.median(seconds) for who, seconds in costs.items()}
    print(
        f"8 clients, processor time per answer: site {1000 * spent['site']:.1f} ms, clients "
        f"{1000 * spent['clients']:.1f} ms; the model alone {1000 * spent['model']:.1f} ms, "
        f"{spent['model'] / spent['site']:.0%} of the site's (target: 85 %)"
    )
    share = overloaded / crowded
    print(f"64 clients: {overloaded:.1f}/s, {share:.0%} of 8 clients (target: 80 %); by status: {counts}")
    print(f"64 clients: /healthz p99 {1000 * np.percentile(health, 99):.0f} ms (target: at most 250 ms)")
    if args.soak:
        soak(site, form, args.soak)


def soak(site: RunningSite, form: bytes, num_requests: int) -> None:
    client, marks = Client(site.port), []
    for number in range(num_requests + 1):
        if number % max(1, num_requests // 4) == 0:
            marks.append(f"{number}: {site.usage().rss / 2**20:.0f}")
        client.post(form)
    print(f"resident memory in MiB after so many more requests: {', '.join(marks)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model-path", type=Path, default=MODEL_PATH, metavar="FILE", help="(default: the shipped one)"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of a phase (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--soak", type=int, default=2000, help="requests of the memory test (default: 2000)")
    args = parser.parse_args()
    with RunningSite(args.model_path) as site:
        print(f"listening after {site.listening_seconds:.1f} s, ready after {site.wait_until_ready():.1f} s")
        measure(site, args)


if __name__ == "__main__":
    main()
