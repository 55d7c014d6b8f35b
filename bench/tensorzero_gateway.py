"""TensorZero's HTTP gateway out of its Python wheel, until killed; run by the interpreter that has the wheel.

``python tensorzero_gateway.py CONFIG`` prints the gateway's address: it chooses its own port.
"""

import signal
import sys

from tensorzero.tensorzero import _start_http_gateway  # type: ignore[import-not-found, unused-ignore]

gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print(gateway.base_url, flush=True)
signal.pause()
