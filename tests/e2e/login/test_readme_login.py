"""README's section on logins, run as it stands there."""

import asyncio
import os
import re
from pathlib import Path

from local_stack.stack import Stack
from tests.support.sori import RECORDING

ROOT = Path(__file__).parents[3]
LIMIT_SECONDS = 90.0


async def test_the_login_in_the_readme_works_from_end_to_end(login_stack: Stack, tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().split("## With a login", 1)[1]
    found = re.search(r"^```bash\nAUTH=required make up\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "test_audio.wav").write_bytes(RECORDING)
    script = found[1].replace("http://localhost:8000", login_stack.url).replace("curl ", "curl -sS --fail ")
    for file in ("test_audio.wav", "cookies.txt"):
        script = script.replace(file, str(tmp_path / file))
    running = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=ROOT,
        env={**os.environ, "SORI_HOME": str(login_stack.home)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        out, err = await running.communicate()
    assert running.returncode == 0, err.decode()
    assert out.decode().count('{"jobs":[') == 3
