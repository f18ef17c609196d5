"""``python -m crmkit`` is the command line."""

from __future__ import annotations

from crmkit.cli import main

if __name__ == "__main__":
    main()
