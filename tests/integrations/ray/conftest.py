"""Ray talks to itself over sockets; what the other tests refuse is let through here, on this machine."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def blocked_sockets():
    import ray.util

    with pytest.MonkeyPatch.context() as patch:
        # `ray start` takes this address, and not that of the loopback, even when it is asked to.
        patch.setenv("PACKCLI_TESTS_MAY_REACH", f"this machine,{ray.util.get_node_ip_address()}")
        yield


@pytest.fixture(autouse=True)
def no_network():
    return
