"""When and where: the order of operators and the memory plan."""

from bitc.schedule.memory import MemoryPlan, plan_memory

__all__ = ["MemoryPlan", "plan_memory"]
