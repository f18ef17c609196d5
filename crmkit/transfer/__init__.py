"""Files into records: a plan that says what would be made and what is wrong, and its `apply`."""

from crmkit.transfer.drafts import BadRow
from crmkit.transfer.importplan import ImportPlan, Progress, bad_row_text
from crmkit.transfer.planner import plan

__all__ = ["BadRow", "ImportPlan", "Progress", "bad_row_text", "plan"]
