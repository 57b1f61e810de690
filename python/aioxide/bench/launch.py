"""Start a measuring process: this folder becomes a package by itself, so that aioxide is not imported.

A process that measures another loop should have nothing of ours in it. The environment variable
BENCHMARK_FOLDER names a second folder, whose modules join the package.
"""

import os
import runpy
import sys
import types
from pathlib import Path

package = types.ModuleType("measured")
package.__path__ = [str(Path(__file__).parent)]
if "BENCHMARK_FOLDER" in os.environ:
    package.__path__.append(os.environ["BENCHMARK_FOLDER"])
sys.modules["measured"] = package
# Where this script lives; its neighbours must not be taken for modules of the same name elsewhere.
del sys.path[0]
runpy.run_module("measured.child", run_name="__main__", alter_sys=True)
