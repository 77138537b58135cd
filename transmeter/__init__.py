"""Which data should I use? Rank source data sets for a target, and use the one that helps.

What is public is imported when it is first asked for: torch takes seconds, `import transmeter` does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transmeter.api import transfer as transfer
    from transmeter.api import validate as validate
    from transmeter.checks import check as check
    from transmeter.estimators import TransferClassifier as TransferClassifier
    from transmeter.estimators import TransferRegressor as TransferRegressor
    from transmeter.ranking import rank as rank
    from transmeter.result import Ranking as Ranking

_WHERE = {
    "Ranking": "result",
    "TransferClassifier": "estimators",
    "TransferRegressor": "estimators",
    "check": "checks",
    "rank": "ranking",
    "transfer": "api",
    "validate": "api",
}
__all__ = ["Ranking", "TransferClassifier", "TransferRegressor", "check", "rank", "transfer", "validate"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'transmeter' has no attribute '{name}'")
    return getattr(import_module(f"transmeter.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
