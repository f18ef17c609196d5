"""What is protected in one workspace and what is not: ``crm.security``."""

from crmkit.security.report import FieldState, Index, PluginAccess, Report, report
from crmkit.security.texts import PaymentText, Security

__all__ = ["FieldState", "Index", "PaymentText", "PluginAccess", "Report", "Security", "report"]
