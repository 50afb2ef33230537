"""A small scorer that follows a big one."""
