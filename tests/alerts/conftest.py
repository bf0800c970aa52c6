import pytest

from mailserver import MailServer


@pytest.fixture
async def server(tmp_path):
    async with MailServer(tmp_path) as running:
        yield running
