"""When and where: the order of operators and the memory plan."""

from bitc.schedule.memory import plan_memory
from bitc.schedule.ordering import Order, best_order

__all__ = ["Order", "best_order", "plan_memory"]
