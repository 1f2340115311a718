"""Exercises of 02_applications/04_prompts_and_tools: chats, few-shot prompts, tool schemas; the rest is in tools.py."""

ORDER = ["render_chat", "few_shot_prompt", "tool_schema", "parse_tool_call", "constrain_json", "dispatch"]
