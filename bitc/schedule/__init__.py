"""When and where: the order of operators and the memory plan."""

from bitc.schedule.memory import plan_memory

__all__ = ["plan_memory"]
