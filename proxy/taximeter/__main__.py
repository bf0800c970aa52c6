"""The `taximeter` command, also as `python -m taximeter`."""

import os
import signal
import sys


def main() -> None:
    """Run a verb. `status`, which health checks run all the time, starts without click where it can.

    A directory that refers to other variables is left to the settings, which know how they are written; one on which
    nothing runs as well, since they may say why.
    """
    data_dir = os.environ.get("TAXIMETER_DATA_DIR", "")
    if data_dir and "$" not in data_dir and sys.argv[1:] in (["status"], ["status", "--json"]):
        from taximeter.node.status import runs, show

        if runs(data_dir):
            sys.exit(show(data_dir, as_json="--json" in sys.argv))
    if "serve" in sys.argv[1:]:
        # One that comes while it starts asks for a reload as any other: the supervisor hears it once it can.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from taximeter.cli import main as command

    command(prog_name="taximeter")


if __name__ == "__main__":
    main()
