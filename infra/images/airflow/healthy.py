#!/usr/bin/env python3
"""The health check of Airflow's containers: ``healthy.py scheduler|dag_processor|triggerer|metadatabase``.

The API server tells when each of them last gave a sign of life; asking it is cheaper than starting Airflow's
command line for that.
"""

import json
import sys
import urllib.request

with urllib.request.urlopen("http://airflow-apiserver:8080/api/v2/monitor/health", timeout=10) as answer:
    status = json.load(answer)[sys.argv[1]]["status"]
if status != "healthy":
    sys.exit(f"{sys.argv[1]} is {status}")
