"""A proxy in the environment is asked for what lies outside alone."""

import pytest

from process.proxies import spare_loopback


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_with_a_proxy_loopback_is_reached_past_it(variable: str) -> None:
    environ = {variable: "http://proxy.example:3128", "NO_PROXY": "intern.example"}
    spare_loopback(environ)
    spare_loopback(environ)
    assert environ["no_proxy"] == environ["NO_PROXY"] == "intern.example,127.0.0.1,localhost,::1"


@pytest.mark.parametrize("environ", [{}, {"HTTP_PROXY": "http://proxy.example:3128", "no_proxy": "*"}])
def test_where_nothing_is_in_the_way_nothing_changes(environ: dict[str, str]) -> None:
    before = dict(environ)
    spare_loopback(environ)
    assert environ == before
