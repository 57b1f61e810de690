"""Whose instructions they are, by callgrind's own account."""

import callgrind

COUNTED = """\
# callgrind format
events: Ir
ob=(1) /usr/lib/libc.so.6
fn=(1) malloc
12 30
+3 5
ob=(2) /some/where/_rust.cpython-313-x86_64-linux-gnu.so
fn=(2) run
7 100
cob=(1)
cfn=(1)
calls=4 12
7 140
* 1
cob=(3) /usr/lib/libpython3.13.so
cfn=(3) PyObject_Vectorcall
calls=1 0
-2 1000
ob=(1)
fn=(4) free
2 4

totals: 140
"""


def test_what_is_called_counts_where_it_is_spent():
    assert callgrind.by_library(iter(COUNTED.splitlines(keepends=True))) == {
        "/usr/lib/libc.so.6": 39,
        "/some/where/_rust.cpython-313-x86_64-linux-gnu.so": 101,
    }
