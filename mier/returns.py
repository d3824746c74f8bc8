"""Did the returns fall when the policy changed, by more than chance explains? Asked after each episode, for as long as
the policy acts.

What is compared are ranks (Mann and Whitney 1947): how often an episode of the new policy did no worse than one of
the old. Where the policies are equally good every order of the episodes is equally likely, whatever returns look like:
a robot that falls one time in three has nothing normal about its returns, and a t-test finds it worse for no reason.
Ranks have no scale, so a fall of less than a hundredth of the returns' own size is none, however sure.

    look    1      2        3          ...   k
    after   f      1.5 f    2.25 f           1.5^(k-1) f episodes, f: the fewest whose order can be surprising enough
    level   0.5%   0.25%    0.125%           1% / 2^k

The levels add up to 1%: so many policies that are no worse are found to be, over their whole life.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FALSE_ALARMS = 0.01
"""Share of policies that are no worse and are found to be, over their whole life."""
_GROWTH = 1.5
"""Of the number of episodes, from look to look."""
_NEGLIGIBLE = 0.01
"""Of the mean size of the returns before."""
_EXACT = 20
"""Returns on the smaller side up to which orders are counted; beyond, the number of wins is normal enough."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fall:
    """Returns that fell beyond chance."""

    episodes: int
    mean: float
    """Of the new policy's returns, in the unit of the reward."""
    episodes_before: int
    mean_before: float
    p_value: float
    """Share of all orders of these episodes that speak against the new policy as much."""
    level: float
    """What it had to stay below, at this look."""

    def __str__(self) -> str:
        return (
            f"mean return {self.mean:.4g} in {self.episodes} episodes, {self.mean_before:.4g} in "
            f"{self.episodes_before} before; chance {self.p_value:.1g}, allowed {self.level:.1g}"
        )


def fall(before: npt.ArrayLike, since: npt.ArrayLike) -> Fall | None:
    """What the newest of the returns `since` [n1] the policy changed tells, against those `before` [n0]; None: nothing.

    To be asked once for each n1, while n0 stays or grows: else the bound on false alarms does not hold.
    """
    old, new = np.asarray(before, np.float64), np.asarray(since, np.float64)
    level = level_after(len(old), len(new))
    if level is None:
        return None
    if old.mean() - new.mean() <= _NEGLIGIBLE * np.abs(old).mean():
        return None
    p_value = rank_test(old, new)
    if p_value > level:
        return None
    return Fall(len(new), float(new.mean()), len(old), float(old.mean()), p_value, level)


def level_after(n0: int, n1: int) -> float | None:
    """Of the look after n1 episodes, n0 before; None: there is no look then."""
    if min(n0, n1) < 2:
        return None
    episodes, level = 2, 0.5 * FALSE_ALARMS
    while math.comb(n0 + episodes, n0) * level < 1.0:
        episodes += 1
    while episodes < n1:
        episodes, level = math.ceil(_GROWTH * episodes), 0.5 * level
    return level if episodes == n1 else None


def rank_test(old: FloatArray, new: FloatArray) -> float:
    """Share of the orders of old [n0] and new [n1] in which new wins no more often than here. Ties count as wins, so
    that it is never too small."""
    n0, n1 = len(old), len(new)
    wins = int(np.searchsorted(np.sort(old), new, "right").sum())
    if 2 * wins >= n0 * n1:
        return 1.0
    if min(n0, n1) > _EXACT:
        deviation = math.sqrt(n0 * n1 * (n0 + n1 + 1) / 12.0)
        return 0.5 * math.erfc((0.5 * n0 * n1 - wins - 0.5) / deviation / math.sqrt(2.0))
    few, many = min(n0, n1), max(n0, n1)
    # Orders by wins: the coefficients of the Gaussian binomial, prod_i (1 - q^(many + i)) / (1 - q^i).
    orders = np.zeros(wins + 1)
    orders[0] = 1.0
    for i in range(1, few + 1):
        orders[many + i :] -= orders[: max(0, wins + 1 - many - i)].copy()
        padded = np.pad(orders, (0, -len(orders) % i)).reshape(-1, i)
        orders = padded.cumsum(0).reshape(-1)[: wins + 1]
    return float(orders.sum()) / math.comb(n0 + n1, n0)
