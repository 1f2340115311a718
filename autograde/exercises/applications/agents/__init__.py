"""Exercises of 02_applications/06_agents: reading an action, the loop around it, its tools, plans, and MCP by hand."""

ORDER = ["parse_action", "is_looping", "run_agent", "rag_tool", "call_parallel", "plan_then_execute", "answer_rpc"]
