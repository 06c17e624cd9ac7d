"""Ray talks to itself over sockets; what the other tests refuse is let through here, on this machine."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def blocked_sockets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKCLI_TESTS_MAY_REACH", "this machine")
        yield


@pytest.fixture(autouse=True)
def no_network():
    return
