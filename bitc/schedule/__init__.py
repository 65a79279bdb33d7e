"""When and where: the order of operators and the memory plan."""

from bitc.schedule.memory import plan_memory
from bitc.schedule.ordering import order

__all__ = ["order", "plan_memory"]
