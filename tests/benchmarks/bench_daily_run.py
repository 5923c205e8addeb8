"""How long ``make run`` takes, step by step: ``make bench-run`` on a machine with nothing of ours on it.

Prints a table and writes JSON with the machine and the versions. Run it on a clean checkout to measure the
installation as well; on a checkout that was set up already, ``setup`` measures the check that nothing changed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def seconds_of(target: str) -> float:
    """Run one make target to its end; raises CalledProcessError where it fails."""
    started = time.monotonic()
    subprocess.run(["make", target], cwd=ROOT, check=True)
    return round(time.monotonic() - started, 1)


def cpu_model() -> str:
    """The processor's name, as the kernel gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def machine() -> dict[str, Any]:
    """What this was measured on."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time make run, step by step.")
    parser.add_argument("--json", type=Path, default=ROOT / ".local" / "bench" / "daily_run.json")
    target = parser.parse_args().json
    seconds = {"setup": seconds_of("setup"), "up": seconds_of("up")}
    whole = seconds_of("run")
    steps = json.loads((ROOT / ".local" / "logs" / "run" / "seconds.json").read_text())
    seconds |= steps
    seconds["setup and up again, summary"] = round(whole - sum(steps.values()), 1)
    freeze = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-V"], capture_output=True, text=True, check=True
    ).stdout
    result = {
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {
            "python": freeze.strip(),
            "requirements": (ROOT / "requirements.txt").read_text().split(),
        },
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 1),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{result['machine']['cpu']}, {result['machine']['cores']} cores")
    for name, value in [*seconds.items(), ("total", result["total_seconds"])]:
        print(f"{name:30} {value:8.1f} s")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
