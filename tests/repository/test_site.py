"""The site of the documents: built with warnings as errors, its links and what it loads."""

import os
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent.parent
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]


class Links(HTMLParser):
    """The links of a page, what it loads, and the names that a link may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in {"img", "script"} and "src" in found:
            self.loaded.append(found["src"])
        elif tag == "link":
            self.loaded.append(found["href"])


def build(folder: Path, *, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    uv = str(Path(sys.executable).parent / "uv")
    needs = [word for requirement in GROUPS["docs"] for word in ("--with", requirement)]
    argv = [uv, "run", "--quiet", "--no-project", "--isolated", *needs, "--python", sys.executable]
    argv += ["mkdocs", "build", "--config-file", str(config), "--site-dir", str(folder)]
    # It is no warning of the site's.
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.network
def test_every_document_has_a_page(site: Path) -> None:
    documents = {p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md")}
    missing = [d for d in documents if not (site / d.with_suffix("") / "index.html").exists()]
    assert missing == []
    assert "without recompiling them" in (site / "index.html").read_text()


@pytest.mark.network
def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 30
    for path, page in pages.items():
        for target in page.links + page.loaded:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert target in page.links, f"{path}: {target} is loaded from elsewhere"
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            assert there.exists(), f"{path}: {target}"
            if parts.fragment and there in pages:
                names = pages[there].names | {"__skip"}
                assert unquote(parts.fragment) in names, f"{path}: {target}"


@pytest.mark.network
def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[there](nowhere.md)\n")
    text = (ROOT / "mkdocs.yml").read_text().partition("nav:\n  -")[0]
    text = text.replace("hooks: [scripts/site_pages.py]\n", "")
    (tmp_path / "mkdocs.yml").write_text(text)
    done = build(tmp_path / "site", config=tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
