"""What goes into a bug report: a host looked at, its secrets and people's names taken out, an archive of it.

Of the standard library alone, and importing nothing else of ours: `deploy support` runs `look` on hosts that have nothing but Python.
"""
