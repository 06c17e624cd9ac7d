"""A Ray cluster of two nodes on this machine, for tests: prints its address, and does what standard input says.

`kill` kills a node, `count` counts those that live.
"""

import sys

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
    else:
        print(sum(node["Alive"] for node in cluster.global_state.node_table()), flush=True)
cluster.shutdown()
