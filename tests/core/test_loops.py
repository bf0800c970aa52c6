import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core import loops
from taximeter.core.errors import LoopDetected

MARK = loops.mark("node-a")


@pytest.mark.parametrize(
    "host",
    ["api.openai.com", "API.OpenAI.com.", "me.openai.azure.com", "api.anthropic.com", "eu.api.openai.com",
     "us-central1-aiplatform.googleapis.com", "bedrock-runtime.us-east-1.amazonaws.com", "api.mistral.ai",
     "vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "openrouter.ai",
     "runtime.sagemaker.eu-west-1.amazonaws.com"],
)  # fmt: skip
def test_a_provider_is_told_nothing(host):
    assert not loops.gets_mark(host)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "gpu-1", "taximeter.example.com", "notopenai.com", "openai.com.evil.example",
     "lb-1.eu-west-1.elb.amazonaws.com", "me.azure-api.net", "vm.cloudapp.azure.com"],
)  # fmt: skip
def test_who_may_lead_back_here_is(host):
    assert loops.gets_mark(host)


def test_a_call_that_was_here_is_known_by_its_mark_alone():
    loops.check([(b"cdn-loop", b"cloudflare; loops=1, " + loops.mark("node-b")), (b"x", MARK)], MARK)
    for line in (MARK, b"a , " + MARK + b" ; n=1", b"a," + MARK + b",b"):
        with pytest.raises(LoopDetected):
            loops.check([(b"cdn-loop", b"first"), (b"cdn-loop", line)], MARK)


def test_a_chain_without_end_is_a_loop():
    nodes = [(b"cdn-loop", loops.mark(f"node-{number}")) for number in range(loops.MOST_NODES + 1)]
    loops.check(nodes[:-1], MARK)
    with pytest.raises(LoopDetected):
        loops.check(nodes, MARK)


@given(st.lists(st.sampled_from([b"cloudflare", b" fastly; x=1 ", MARK, b" " + loops.mark("b")]), max_size=5))
def test_what_other_proxies_said_stays(entries):
    left = loops.without_marks(b",".join(entries))
    assert left.strip() == b",".join(entry for entry in entries if b"taximeter-" not in entry).strip()


def test_a_node_is_not_known_by_its_mark():
    assert b"node-a" not in MARK
    assert MARK == loops.mark("node-a") != loops.mark("node-b")
