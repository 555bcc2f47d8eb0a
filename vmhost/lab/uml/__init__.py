"""A lab with a kernel of its own: User-Mode Linux, an ordinary process, for what the machine's kernel lacks.

``docs/decisions/0041-lab-with-own-kernel.md`` tells how commands get into it.
"""
