"""nchan, the publish-and-subscribe module of nginx, in C: the yardstick for server-sent events.

It comes from Debian's package libnginx-mod-nchan. Where that is not installed, it is unpacked into `.sori`, which needs
no rights and leaves the machine as it is.
"""

import os
import subprocess
from pathlib import Path

from tests.bench.programs import ROOT, ProgramError, Server

PACKAGE = "libnginx-mod-nchan"
_MODULE = "usr/lib/nginx/modules/ngx_nchan_module.so"
_UNPACKED = ROOT / ".sori" / "peers"
_CONFIG = """\
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {open_files};
pid nginx.pid;
error_log stderr warn;
{user}
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 100000000;
    nchan_shared_memory_size 256m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        # One message is kept of each channel, so that a listener can resume, as with Sori.
        location ~ ^/pub/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 1;
            nchan_message_timeout 10m;
        }}
        location ~ ^/sub/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
            nchan_eventsource_ping_interval 15; # the notifier's heartbeat
        }}
    }}
}}
"""


def nchan(port: int, home: Path) -> Server:
    """nginx with one worker, its files in `home`: POST /pub/<channel>, GET /sub/<channel>.

    Raises ProgramError when the module is neither installed nor to be had from Debian.
    """
    home.mkdir(parents=True, exist_ok=True)
    config = home / "nginx.conf"
    # As root, nginx would give its worker to a user who can read none of these folders.
    user = "user root;" if os.geteuid() == 0 else ""
    limits = {"open_files": 20000, "connections": 16384}
    config.write_text(_CONFIG.format(module=_module(), port=port, user=user, **limits), encoding="utf-8")
    path = {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    return Server(["nginx", "-p", str(home), "-c", str(config)], port, path, home / "nchan.log")


def _module() -> Path:
    for root in (Path("/"), _UNPACKED):
        if (root / _MODULE).exists():
            return root / _MODULE
    _UNPACKED.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=_UNPACKED, check=True, capture_output=True)
        for package in _UNPACKED.glob(f"{PACKAGE}_*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(_UNPACKED)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode(errors="replace")
        raise ProgramError(
            f"The streams are measured beside nchan, which is not here and cannot be fetched: {said.strip() or error}\n"
            f"Run this here as root: sh deploy/local/install-packages {PACKAGE}"
        ) from error
    return _UNPACKED / _MODULE
