import asyncio
from dataclasses import replace

from click.testing import CliRunner

from control_plane import ControlPlane, record
from taximeter.cli import main
from taximeter.sinks.history.sink import History
from taximeter.sinks.redis.counters import Counters


async def rebuild(env, *args):
    return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["rebuild", "redis", *args])


async def cost(redis, workspace="acme"):
    return await redis.hget(f"tm:{{{workspace}}}:total", "cost_nusd")


async def test_counters_are_rebuilt_through_the_running_proxy(tmp_path, valkey_url, redis, closing):
    history = closing(History(f"sqlite:///{tmp_path / 'history.db'}"))
    await history.prepare()
    counters = closing(Counters(valkey_url, history=history))
    control = ControlPlane(tmp_path, history)
    control.services = replace(control.services, rebuild=counters.rebuild)
    async with control:
        await control.add(record(1), record(2, workspace="beta"))
        assert (await rebuild({}, "--url", control.url)).stdout == "2 workspaces rebuilt from history.\n"
        assert await cost(redis) == await cost(redis, "beta") == "33000"
        await redis.hset("tm:{acme}:total", "cost_nusd", 1)
        told = await rebuild({}, "--workspace", "acme", "--json", "--url", control.url)
        assert (told.stdout, await cost(redis)) == ('{"rebuilt":1}\n', "33000")
        await redis.set("tm:{tm:workspaces}:rebuilding", "somebody")
        busy = await rebuild({}, "--url", control.url)
        assert busy.exit_code == 1 and "another process is rebuilding" in busy.stderr


async def test_counters_are_rebuilt_directly_while_no_proxy_runs(
    tmp_path, valkey_url, redis, control, free_address, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    await control.add(record(1))
    env = {"TAXIMETER_DATA_DIR": str(tmp_path), "TAXIMETER_ADMIN_LISTEN": free_address}
    assert (await rebuild({**env, "TAXIMETER_REDIS__URL": valkey_url})).stdout == "1 workspace rebuilt from history.\n"
    assert await cost(redis) == "33000"
    embedded = await rebuild(env)
    assert embedded.exit_code == 2 and "start the proxy" in embedded.stderr
