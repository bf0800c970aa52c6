"""`taximeter-rag lightrag-server …`: LightRAG's own server, with the plugin active for certain."""

from __future__ import annotations

import sys

USAGE = """usage: taximeter-rag lightrag-server [OPTIONS OF LIGHTRAG-SERVER]
       taximeter-rag lightrag-gunicorn [OPTIONS OF LIGHTRAG-GUNICORN]

Starts LightRAG's server with its calls metered by a Taximeter proxy. Settings, from the environment or .env:
  TAXIMETER_PROXY_URL   the proxy, like http://127.0.0.1:8000 (else OPENAI_BASE_URL is taken)
  TAXIMETER_URL         its control port, like http://127.0.0.1:8001 (the default)
  TAXIMETER_TOKEN       a workspace's key (tm-…) or the admin token, where the control port asks for one
  TAXIMETER_WORKSPACES  on, a number or names: the workspaces LIGHTRAG-WORKSPACE may open here (default: off)
  TAXIMETER_POINT       always: hosts that LightRAG's settings name are pointed at the proxy too, where it has them
  TAXIMETER_STRICT      1: do not start where something would not be metered
"""


def main() -> int:
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if command not in ("lightrag-server", "lightrag-gunicorn"):
        asked = command in ("-h", "--help")
        (sys.stdout if asked else sys.stderr).write(USAGE)
        return 0 if asked else 2
    sys.argv = [command, *rest]
    try:
        from lightrag.api import lightrag_server, run_with_gunicorn
        from lightrag.parser import plugins
    except ImportError as error:
        sys.stderr.write(f"taximeter-rag: LightRAG's server is not installed here ({error}).\n")
        return 1
    from taximeter_rag.lightrag import register

    create_app = lightrag_server.create_app

    def creating(args: object) -> object:
        plugins.load_third_party_parsers()  # ours among them, where it is installed
        register()
        return create_app(args)

    lightrag_server.create_app = creating
    (lightrag_server if command == "lightrag-server" else run_with_gunicorn).main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
