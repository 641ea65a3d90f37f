"""Energy and CO2 of training and of answers: always an estimate, from CPU time and assumed power.

The method of Lacoste et al. 2019 (https://arxiv.org/abs/1910.09700): power times time times the carbon
intensity of the grid. No meter was read.
"""

from __future__ import annotations

from dataclasses import dataclass

# Watts that one busy core takes with its share of memory and losses: from a laptop's core to a server's.
CORE_W = (5.0, 20.0)
# World average of 2024 by the IEA (Electricity 2025): grams of CO2 for each kWh. Grids: under 50 to over 700.
G_CO2_PER_KWH = 445.0


@dataclass(frozen=True)
class Energy:
    """A range (low, high), always an estimate."""

    wh: tuple[float, float]

    @property
    def g_co2(self) -> tuple[float, float]:
        """Grams of CO2 at the world's average intensity."""
        low, high = (wh / 1e3 * G_CO2_PER_KWH for wh in self.wh)
        return low, high


def energy_of(core_seconds: float) -> Energy:
    """Of so many seconds of a busy core; of two cores for an hour, 7200."""
    low, high = (watts * core_seconds / 3600 for watts in CORE_W)
    return Energy((low, high))
