"""``ray start`` that keeps every port of the node on loopback.

Ray replaces 127.0.0.1 by the machine's outward address, and then GCS and raylet, which execute whatever
they are sent, listen on every interface. ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0`` turns that replacement off
in all of Ray's processes; Ray means it for laptops and therefore refuses to start a second node with it.
This program is Ray's command line with that one refusal lifted.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run Ray's command line on this process's arguments."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    from ray._private import ray_constants, services
    from ray.scripts.scripts import main as ray_command_line

    ray_constants.ENABLE_RAY_CLUSTER = True
    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    return int(ray_command_line() or 0)


if __name__ == "__main__":
    sys.exit(main())
