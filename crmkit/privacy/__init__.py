"""Privacy: erasing somebody, for good and everywhere, and seeing to it that they do not come back unnoticed."""

from __future__ import annotations

from crmkit.privacy.certificate import Certificate, ErasurePlan
from crmkit.privacy.erasure import Eraser
from crmkit.privacy.suppression import Suppression

__all__ = ["Certificate", "Eraser", "ErasurePlan", "Suppression"]
