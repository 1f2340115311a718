"""Exercises of 02_applications/06_agents: reading an action, the loop around it, plans, tools, and MCP by hand."""

ORDER = [
    "parse_action",
    "is_looping",
    "run_agent",
    "plan_then_execute",
    "rag_tool",
    "call_parallel",
    "answer_rpc",
]
