"""The recorder with telemetry: ``proxy.recorder`` as a process, and spans and metrics of what it moves."""

import sys

from proxy.recorder import begin, run
from proxy.telemetry import Telemetry


def main() -> None:
    settings = begin(sys.argv[1])
    telemetry = Telemetry(settings.telemetry)
    try:
        run(settings, (telemetry,))
    finally:
        telemetry.close()


if __name__ == "__main__":
    main()
