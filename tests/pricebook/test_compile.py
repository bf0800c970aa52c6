"""From settings, environment and packages to the file that workers load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taximeter.config import Settings
from taximeter.core.errors import ConfigError
from taximeter.core.prices import Card, Rates
from taximeter.pricebook import PriceBook, compile_prices
from taximeter.pricebook.compile import env_cards, own_file, shipped_file
from taximeter.pricebook.listed import read_prices

REPOSITORY = Path(__file__).parents[2]
LLM_IN, LLM_OUT = "LIGHTRAG_LLM_PRICE_PER_1K_INPUT", "LIGHTRAG_LLM_PRICE_PER_1K_OUTPUT"
EMBEDDING = "LIGHTRAG_EMBEDDING_PRICE_PER_1K"
OWN = '[[price]]\nprovider = "ollama"\nmodel = "llama3*"\nfrom = 2026-01-01\nfree = true\nsource = "our own hardware"\n'


def test_what_is_compiled_is_what_a_worker_loads(tmp_path: Path) -> None:
    path = tmp_path / "data" / "prices.json"
    catalog = compile_prices(Settings(prices_file=str(REPOSITORY / "config/prices.toml")), path, {})
    assert PriceBook.load(path).lists.catalog == catalog
    assert list(path.parent.iterdir()) == [path]
    assert {"openai", "anthropic", "google", "openrouter"} <= {publisher.id for publisher in catalog.publishers}


def test_loading_prices_does_not_import_the_list(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    compile_prices(Settings(), path, {})
    program = (
        "import sys; from pathlib import Path; from taximeter.pricebook import PriceBook; "
        f"PriceBook.load(Path({str(path)!r})); print('genai_prices' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY / "proxy", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_refused_price_file_leaves_the_compiled_one_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text("before")
    (tmp_path / "bad.toml").write_text("[[price]]\n")
    with pytest.raises(ConfigError):
        compile_prices(Settings(prices_file=str(tmp_path / "bad.toml")), path, {})
    assert path.read_text() == "before"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 0, "compiled_at": 1, "source": "x"}'])
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"prices\.json"):
        PriceBook.load(path)


def test_the_shipped_price_file_is_in_order_and_says_its_sources() -> None:
    declared = read_prices(REPOSITORY / "config/prices.toml").models
    assert {(entry.provider, entry.listed.model) for entry in declared} >= {
        ("cohere", "rerank-v3.5"),
        ("voyageai", "rerank-2.5"),
    }


def test_where_the_price_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_file(Settings(prices_file="own.toml")) == Path("own.toml")
    assert own_file(Settings()) is None
    (tmp_path / "config").mkdir()
    (tmp_path / "config/prices.toml").touch()
    assert own_file(Settings()) == Path("config/prices.toml")
    assert shipped_file() == REPOSITORY / "config/prices.toml"


@pytest.mark.parametrize("configured", ["own.toml", ""])
def test_prices_of_ones_own_add_to_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / (configured or "config/prices.toml")
    file.parent.mkdir(exist_ok=True)
    shipped = read_prices(REPOSITORY / "config/prices.toml").models
    file.write_text(OWN)
    catalog = compile_prices(Settings(prices_file=configured), tmp_path / "prices.json", {})
    assert (catalog.declared, catalog.shipped) == (read_prices(file).models, shipped)


def test_a_copy_of_the_shipped_prices_says_nothing_twice(tmp_path: Path) -> None:
    copy = tmp_path / "own.toml"
    copy.write_text((REPOSITORY / "config/prices.toml").read_text() + OWN)
    catalog = compile_prices(Settings(prices_file=str(copy)), tmp_path / "prices.json", {})
    assert (catalog.declared, catalog.shipped) == (read_prices(copy).models, [])


def test_prices_per_1k_from_the_environment() -> None:
    environ = {LLM_IN: "0.00015", LLM_OUT: " 0.0006 ", EMBEDDING: "0"}
    assert env_cards(environ) == (
        Card(ref="env", rates=Rates(input=150_000, output=600_000)),
        Card(ref="env", rates=Rates(input=0)),
    )
    assert env_cards({LLM_IN: "", LLM_OUT: "", EMBEDDING: " "}) == (None, None)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({LLM_IN: "1"}, LLM_OUT),
        ({LLM_OUT: "1"}, LLM_IN),
        ({EMBEDDING: "cheap"}, EMBEDDING),
        ({EMBEDDING: "-1"}, EMBEDDING),
        ({EMBEDDING: "NaN"}, EMBEDDING),
        ({EMBEDDING: "1e-12"}, EMBEDDING),
    ],
)
def test_a_bad_price_in_the_environment_is_refused_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        env_cards(environ)
