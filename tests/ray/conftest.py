"""Ray talks to itself over sockets; what the other tests refuse is let through here, on this machine."""

import os

import pytest

os.environ["PACKCLI_TESTS_MAY_REACH"] = "this machine"


@pytest.fixture(scope="session", autouse=True)
def blocked_sockets():
    return


@pytest.fixture(autouse=True)
def no_network():
    return
