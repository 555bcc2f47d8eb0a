"""For tests and demonstrations: a host in memory that implements every port, builders of values, faults on demand."""

from __future__ import annotations

from vmhost.testing.faults import FaultPlan, FaultyPorts, SimulatedKill
from vmhost.testing.host import FakeHost
from vmhost.testing.world import Behaviour

__all__ = ["Behaviour", "FakeHost", "FaultPlan", "FaultyPorts", "SimulatedKill"]
