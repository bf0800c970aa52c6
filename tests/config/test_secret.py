import pytest

from taximeter.config import AuthSettings, Settings
from taximeter.config.checks import before_serving
from taximeter.config.secret import SHORTEST_BYTES, shared_secrets
from taximeter.core.errors import ConfigError

LONG, LONGER = "s" * SHORTEST_BYTES, "t" * 64


def test_none_is_none():
    assert shared_secrets(AuthSettings(), {}) == []


def test_it_comes_from_a_variable_or_a_file(tmp_path):
    assert shared_secrets(AuthSettings(shared_secret_env="S"), {"S": LONG}) == [LONG.encode()]
    (tmp_path / "s").write_text(f"{LONG}\n{LONGER}\n")
    assert shared_secrets(AuthSettings(shared_secret_file=str(tmp_path / "s")), {}) == [LONG.encode(), LONGER.encode()]


@pytest.mark.parametrize(
    ("auth", "environ", "says"),
    [
        (AuthSettings(shared_secret_env="S"), {}, "variable S holds no secret"),
        (AuthSettings(shared_secret_env="S"), {"S": "short"}, "at least 32 characters"),
        (AuthSettings(shared_secret_env="S"), {"S": f"{LONG} short"}, "at least 32 characters"),
        (AuthSettings(shared_secret_file="/nowhere/s"), {}, "cannot be read: No such file"),
    ],
)
def test_one_that_cannot_be_used_is_refused_before_serving(auth, environ, says):
    with pytest.raises(ConfigError, match=says) as refused:
        before_serving(Settings(auth=auth), environ)
    assert "short" not in str(refused.value)
