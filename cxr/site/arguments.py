"""The command line of app.py: its flags, their defaults and limits."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from cxr.site.limits import host_of_user, page_origin, url_prefix


def parse_args(argv: Sequence[str] | None = None, *, anatomy: Path | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        anatomy: the model that outlines lungs and heart by default.
    """
    parser = argparse.ArgumentParser(
        description="Serve the microsite. A prototype for education, not for clinical use."
    )
    parser.add_argument(
        "--model-path",
        type=Path,
        action="append",
        metavar="FILE",
        help="(default: model/chest_xray_densenet_model.h5); may be repeated: each picture is then answered by every "
        "model, and each further one takes about 290 MB of memory",
    )
    parser.add_argument(
        "--anatomy",
        type=_anatomy,
        default=anatomy,
        metavar="FILE",
        help="model that outlines lungs and heart, or none (default: model/anatomy.h5; without that file the site does "
        "without outlines)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, which only this machine can reach)",
    )
    parser.add_argument("--port", type=_argument(_port), default=5000, help="(default: %(default)s)")
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="f32", help="of OpenVINO (default: %(default)s)"
    )
    parser.add_argument(
        "--trusted-host",
        action="append",
        metavar="NAME",
        default=[],
        type=_argument(host_of_user),
        help="name under which visitors may address the site, beside this machine's own; may be repeated (default: "
        "none with a local --host, else any)",
    )
    parser.add_argument(
        "--url-prefix",
        default="",
        type=_argument(url_prefix),
        metavar="PATH",
        help="path below which a proxy shows the site, such as /cxr (default: none)",
    )
    parser.add_argument(
        "--behind-proxy",
        nargs="?",
        type=_argument(_num_proxies),
        default=0,
        const=1,
        metavar="N",
        help="heed the headers X-Forwarded-For, -Proto, -Host and -Prefix, to which each of N proxies adds one value "
        "(N: 1 unless given; default: these headers are ignored)",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        metavar="URL",
        default=[],
        type=_argument(page_origin),
        help="origin such as https://app.example.org whose pages may use the interface for programs; may be repeated "
        "(default: none)",
    )
    args = parser.parse_args(argv)
    names = [path.stem for path in args.model_path or ()]
    if len(set(names)) < len(names):
        parser.error("argument --model-path: expected files of different names, by which a model is chosen")
    return args


def _argument(parse: Callable[[str], str | int]) -> Callable[[str], str | int]:
    """Let the command line repeat the words of a ValueError."""

    def parse_argument(text: str) -> str | int:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _port(text: str) -> int:
    if not (text.isdecimal() and text.isascii() and int(text) < 2**16):
        raise ValueError(f"Expected a number from 0 to 65535, received {text!r}.")
    return int(text)


def _num_proxies(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10:
        raise ValueError(f"Expected how many proxies stand before the site, 1 to 9, received {text!r}.")
    return int(text)


def _anatomy(text: str) -> Path | None:
    """Read --anatomy."""
    return None if text == "none" else Path(text)
