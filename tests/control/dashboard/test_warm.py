from pathlib import Path

from taximeter.control.dashboard import charts, rendering, warm
from taximeter.control.process import main as process


def test_after_warming_a_page_has_nothing_to_compile():
    rendering.environment.cache_clear()
    charts.load.cache_clear()
    warm()
    templates = {path.name for path in (Path(rendering.__file__).parent / "templates").iterdir()}
    compiled = rendering.environment().cache
    assert compiled is not None
    assert {name for _, name in compiled} == templates
    assert charts.load.cache_info().currsize == 1


async def test_a_dashboard_that_cannot_be_warmed_ends_nothing(monkeypatch):
    tried = []

    def broken():
        tried.append(1)
        raise ImportError("pygal")

    monkeypatch.setattr(process, "WARM_S", 0)
    monkeypatch.setattr(process, "warm", broken)
    await process._warm()
    assert tried == [1]
