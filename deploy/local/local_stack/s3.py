"""S3 as rclone serves it from a folder: each bucket is a folder below it."""

import http.client
import sys
from collections.abc import Mapping
from pathlib import Path

from local_stack.part import NotReadyError, Part
from local_stack.ports import LOOPBACK, Ports


def s3_url(ports: Ports) -> str:
    """Return the address of the S3 server."""
    return f"http://{LOOPBACK}:{ports.s3}"


def object_storage(home: Path, ports: Ports, settings: Mapping[str, str], system: Mapping[str, str]) -> Part:
    """rclone's S3 server over `home/s3`, with the bucket and the access key of the services' settings."""
    folder = home / "s3"
    options = ("--addr", f"{LOOPBACK}:{ports.s3}", "--config", "", "--cache-dir", str(home / "s3-cache"))
    return Part(
        name="s3",
        command=(str(Path(sys.executable).with_name("rclone")), "serve", "s3", *options, str(folder)),
        # The key is not among the arguments, which every user of the machine can read.
        env=dict(system)
        | {"RCLONE_AUTH_KEY": f'"{settings["AWS_ACCESS_KEY_ID"]},{settings["AWS_SECRET_ACCESS_KEY"]}"'},
        ports={ports.s3: "S3"},
        address=s3_url(ports),
        check_ready=lambda: _answers(ports.s3),
        folders=(folder / settings["S3_BUCKET_NAME"],),
    )


def _answers(port: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError("S3 does not answer yet") from error
    finally:
        connection.close()
