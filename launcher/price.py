"""What a machine costs an hour, as a person types it: `1.98/h`, `¥1.98/h`, `$0.5`; and what that makes of hours."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

HIGHEST = 100_000.0
_PRICE = re.compile(
    r"\s*(?P<symbol>[^\d\s.,+\-/]{0,4})\s*(?P<amount>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?:/\s*(?:h|hr|hour))?\s*"
)
FORM = "an amount an hour, such as 1.98, ¥1.98/h or $0.5"


@dataclass(frozen=True)
class Price:
    """An amount an hour, in the money of `symbol`, which may be empty."""

    per_hour: float
    symbol: str = ""

    def of(self, seconds: float) -> str:
        """What so many seconds cost, `¥0.53`; `?` of what is no time."""
        amount = self.per_hour * seconds / 3600
        if not math.isfinite(amount) or not 0 <= amount < 1e9:
            return "?"
        gap = " " if self.symbol[-1:].isalpha() else ""
        return f"{self.symbol}{gap}{amount:.2f}"


def parse(text: str) -> Price:
    """The price.  Raises ValueError, in words."""
    read = _PRICE.fullmatch(text)
    if read is None or not all(one.isprintable() for one in read["symbol"]):
        raise ValueError(f"{text!r} is no price; one is {FORM}")
    per_hour = float(read["amount"])
    if per_hour > HIGHEST:
        raise ValueError(f"{text!r} is more than {HIGHEST:,.0f} an hour; a price is {FORM}")
    return Price(per_hour, read["symbol"])


def of_spec(per_hour: float) -> Price | None:
    """The price that a run was submitted with, None where it was not told."""
    return Price(per_hour) if per_hour else None
