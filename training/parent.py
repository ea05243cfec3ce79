"""The training process does not outlive who started it."""

import os
import threading

from pipeline.adapters.job import END_WITH_INPUT


def end_with_input() -> None:
    """End this process when its standard input does, if whoever started it asks for that."""

    def watch() -> None:
        while os.read(0, 1):  # a lock of sys.stdin's, held by a thread, aborts an interpreter that ends
            pass
        os._exit(1)  # nothing may be waited for, or tidied up: another process may be at work in the same place

    if os.environ.pop(END_WITH_INPUT, None):
        threading.Thread(target=watch, daemon=True).start()
