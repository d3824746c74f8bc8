"""`make docs`: the docs as a site, in out/docs/site.

    python -m scripts.docs_site [--out out/docs]

Stages `docs/`, the changelog and the like under OUT/pages; adds the reference, made from the code; makes the
navigation, with every page in it; and has Zensical build it, strictly: a warning is an error, and so is a link to a
page or a heading that is not there. Links to files that are no pages lead to copies of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mier_service.config import ServeConfig
from scripts import docs_reference

REPOSITORY = Path(__file__).resolve().parents[1]
ABOUT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
SECTIONS: dict[str, list[str]] = {
    "Start": ["index.md", "quickstart.md", "concepts.md", "glossary.md"],
    "Tutorials": ["tutorials/your-robot.md", "tutorials/your-environment.md", "clients.md"],
    "How to": [*(f"how-to/{name}.md" for name in ("deploy", "keys", "back-up", "scale", "upgrade", "release"))],
    "Explained": ["architecture.md", "operations.md"],
    "Measured": ["results.md", "reliability.md", "performance.md"],
    "Reference": [*(f"reference/{name}.md" for name in ("configuration", "mierctl", "http", "grpc", "python"))],
    "Project": [f"project/{name.lower()}" for name in ABOUT],
}
"""What is not named here is put under "Explained", decisions in a section of their own."""
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)


def stage(pages: Path) -> None:
    """Every page, under `pages`, with links that hold there."""
    sources = {page.relative_to(REPOSITORY): Path(*page.relative_to(REPOSITORY).parts[1:]) for page in _documents()}
    sources |= {Path(name): Path("project", name.lower()) for name in ABOUT}
    for source, target in sources.items():
        staged = pages / target
        staged.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            staged.write_text(_relinked((REPOSITORY / source).read_text(), source, target, sources, pages))
        else:
            shutil.copyfile(REPOSITORY / source, staged)
    reference = pages / "reference"
    reference.mkdir()
    made = {
        "configuration": docs_reference.settings_page(ServeConfig),
        "mierctl": docs_reference.mierctl_page(),
        "http": docs_reference.http_page(docs_reference.openapi()),
        "grpc": docs_reference.grpc_page((REPOSITORY / "proto/mier_proto/v1/adaptation.proto").read_text()),
        "python": docs_reference.python_page(),
    }
    for name, text in made.items():
        (reference / f"{name}.md").write_text(text)


def _documents() -> Iterator[Path]:
    for path in sorted((REPOSITORY / "docs").rglob("*")):
        if path.is_file() and path.name != "0000-template.md":
            yield path


def _relinked(text: str, source: Path, target: Path, sources: dict[Path, Path], pages: Path) -> str:
    """The page with its links turned to where the site has what they lead to; SystemExit if that is nowhere."""

    def turned(found: re.Match[str]) -> str:
        link = urlsplit(found[1])
        if link.scheme or not link.path:
            return found[1]
        path = Path(os.path.normpath(source.parent / link.path))
        if not (REPOSITORY / path).exists() or path.parts[0] == "..":
            sys.exit(f"docs: {source} links to {found[1]}, which is not there")
        place = sources.get(path) or _copied(path, pages)
        anchor = f"#{link.fragment}" if link.fragment else ""
        return os.path.relpath(place, target.parent) + anchor

    # What is in a fence is no link.
    fences = [found.span() for found in _FENCE.finditer(text)]
    return _LINK.sub(lambda found: found[0] if any(a <= found.start() < b for a, b in fences) else turned(found), text)


def _copied(path: Path, pages: Path) -> Path:
    """Where the site has a copy of a file that is no page; of a folder, a page that lists its files."""
    if (REPOSITORY / path).is_dir():
        listing = Path("files", path, "index.md")
        listed = [_copied(path / name.name, pages) for name in sorted((REPOSITORY / path).iterdir()) if name.is_file()]
        rows = [f"- [{file.name}]({os.path.relpath(file, listing.parent)})" for file in listed]
        _written(pages / listing, f"# {path}\n\n" + "\n".join(rows) + "\n")
        return listing
    # A page's name would make a page of it.
    copy = Path("files", path.with_name(path.name + ".txt") if path.suffix in ("", ".md") else path)
    (pages / copy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(REPOSITORY / path, pages / copy)
    return copy


def _written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def navigation(pages: Path) -> str:
    """As a line of TOML."""
    there = {
        str(page.relative_to(pages)) for page in pages.rglob("*.md") if "files" not in page.relative_to(pages).parts
    }
    decisions = sorted(page for page in there if page.startswith("adr/"))
    named = {page for section in SECTIONS.values() for page in section}
    if missing := sorted(named - there):
        sys.exit(f"docs: the navigation names pages that are not there: {', '.join(missing)}")
    rest = sorted(there - named - set(decisions))
    sections = {title: names + (rest if title == "Explained" else []) for title, names in SECTIONS.items()}
    sections["Decisions"] = decisions
    entries = [f"{{{json.dumps(title)} = {json.dumps(names)}}}" for title, names in sections.items()]
    return f"nav = [{', '.join(entries)}]"


def build(out: Path) -> None:
    """The site, or SystemExit."""
    shutil.rmtree(out, ignore_errors=True)
    pages = out / "pages"
    stage(pages)
    settings = (REPOSITORY / "zensical.toml").read_text().replace("# NAVIGATION", navigation(pages))
    (out / "zensical.toml").write_text(settings.replace("../../", f"{REPOSITORY}/"))
    zensical = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "zensical.toml"]
    done = subprocess.run(zensical, cwd=out, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make docs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/docs"))
    options = parser.parse_args()
    build(options.out.resolve())
    print(f"docs: {options.out / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
