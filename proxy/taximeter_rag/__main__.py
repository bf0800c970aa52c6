"""`python -m taximeter_rag`."""

import sys

from taximeter_rag.cli import main

sys.exit(main())
