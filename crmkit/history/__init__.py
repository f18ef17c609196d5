"""The past: what happened to each record, what to take back, how everything was, and what became of it since."""

from __future__ import annotations

from crmkit.history.developments import Comparison, Developments
from crmkit.history.entries import Batch, History, HistoryEntry
from crmkit.history.past import Past
from crmkit.history.undo import Undo

__all__ = ["Batch", "Comparison", "Developments", "History", "HistoryEntry", "Past", "Undo"]
