"""How a program comes to aioxide: run, new_event_loop, EventLoop, install, and the command line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap

import aioxide
import pytest

WHICH_LOOP = "import asyncio\nasync def main():\n    print(type(asyncio.get_running_loop()).__module__)\n"


@pytest.fixture(params=["uring", "epoll"])
def driver(request):
    """Both drivers; the one the kernel denies is skipped."""
    return request.param


def run_python(*arguments: str, driver: str | None = None, **keywords) -> subprocess.CompletedProcess[str]:
    """Run this interpreter, with a driver chosen by the environment, which chooses nothing else."""
    chosen_here = ("AIOXIDE_DRIVER", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE")
    environment = {key: value for key, value in os.environ.items() if key not in chosen_here}
    if driver is not None:
        environment["AIOXIDE_DRIVER"] = driver
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=30, env=environment, **keywords
    )


def test_run_returns_the_result_and_closes_the_loop():
    loops: list[asyncio.AbstractEventLoop] = []

    async def main():
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return 42

    assert aioxide.run(main()) == 42
    assert isinstance(loops[0], aioxide.EventLoop)
    assert loops[0].is_closed()


def test_run_raises_the_exception():
    async def main():
        raise LookupError("wrong")

    with pytest.raises(LookupError, match="wrong"):
        aioxide.run(main())


def test_run_takes_debug_and_loop_factory():
    async def main():
        return asyncio.get_running_loop()

    assert aioxide.run(main(), debug=True).get_debug() is True
    assert aioxide.run(main(), debug=False).get_debug() is False
    assert not isinstance(aioxide.run(main(), loop_factory=asyncio.SelectorEventLoop), aioxide.EventLoop)


def test_run_cancels_what_is_left():
    cancelled: list[bool] = []

    async def left():
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.append(True)

    async def main():
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        return task

    assert aioxide.run(main()).cancelled()
    assert cancelled == [True]


def test_run_refuses_what_is_no_coroutine():
    with pytest.raises((TypeError, ValueError)):
        aioxide.run(42)


def test_run_inside_a_running_loop_is_an_error():
    async def main():
        coroutine = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="running event loop"):
            aioxide.run(coroutine)
        coroutine.close()

    aioxide.run(main())


def test_new_event_loop_makes_an_event_loop():
    loop = aioxide.new_event_loop()
    assert isinstance(loop, aioxide.EventLoop)
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()


def test_a_runner_takes_the_factory():
    with asyncio.Runner(loop_factory=aioxide.new_event_loop) as runner:
        assert isinstance(runner.get_loop(), aioxide.EventLoop)
        assert runner.run(asyncio.sleep(0, 42)) == 42


def test_the_driver_can_be_chosen(driver, require_driver):
    loop = aioxide.EventLoop(driver=driver)
    assert loop.run_until_complete(asyncio.sleep(0.001, 42)) == 42
    loop.close()


@pytest.mark.parametrize("choice", [None, "auto"])
def test_the_driver_is_chosen_by_itself(choice):
    loop = aioxide.EventLoop(driver=choice)
    assert loop.run_until_complete(asyncio.sleep(0.001, 42)) == 42
    loop.close()


@pytest.mark.parametrize(("wrong", "error"), [("kqueue", ValueError), ("", ValueError), (42, TypeError)])
def test_an_unknown_driver_is_refused(wrong, error):
    with pytest.raises(error):
        aioxide.EventLoop(driver=wrong)


def test_an_unknown_driver_in_the_environment_is_refused():
    done = run_python("-c", "import aioxide; aioxide.EventLoop()", driver="kqueue")
    assert done.returncode != 0
    assert "kqueue" in done.stderr


def test_the_environment_chooses_the_driver(driver, require_driver):
    program = "import aioxide; loop = aioxide.new_event_loop(); print(loop); loop.close()"
    done = run_python("-c", program, driver=driver)
    assert driver in done.stdout, done.stderr


def test_build_info_tells_version_and_driver():
    text = str(aioxide.build_info())
    assert "uring" in text or "epoll" in text


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="policies are deprecated")
def test_install_makes_asyncio_use_aioxide():
    program = (
        f"{WHICH_LOOP}import aioxide\naioxide.install()\n"
        "asyncio.run(main())\nasyncio.new_event_loop().close()"
    )
    done = run_python("-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("aioxide")


def test_the_command_line_runs_an_unmodified_script(tmp_path, driver, require_driver):
    script = tmp_path / "script.py"
    script.write_text(
        WHICH_LOOP
        + textwrap.dedent("""
        import sys
        if __name__ == "__main__":
            asyncio.run(main())
            print(sys.argv, __file__)
        """)
    )
    done = run_python("-m", "aioxide", "--driver", driver, str(script), "--flag", "value")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("aioxide")
    assert second == f"{[str(script), '--flag', 'value']} {script}"


def test_the_command_line_runs_a_module(tmp_path):
    (tmp_path / "program.py").write_text(
        WHICH_LOOP + "import sys\nasyncio.run(main())\nprint(sys.argv[1:])\n"
    )
    done = run_python("-m", "aioxide", "-m", "program", "argument", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("aioxide")
    assert second == "['argument']"


def test_the_command_line_switches_debug_mode_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\nasync def main():\n    print(asyncio.get_running_loop().get_debug())\n"
        "asyncio.run(main())\n"
    )
    assert run_python("-m", "aioxide", "--debug", str(script)).stdout.strip() == "True"
    assert run_python("-m", "aioxide", str(script)).stdout.strip() == "False"


def test_the_exit_code_of_the_script_is_the_exit_code(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(7)")
    assert run_python("-m", "aioxide", str(script)).returncode == 7


@pytest.mark.parametrize("arguments", [[], ["--driver", "kqueue", "script.py"], ["missing-file.py"]])
def test_wrong_command_lines_are_errors(arguments):
    done = run_python("-m", "aioxide", *arguments)
    assert done.returncode != 0
    assert done.stderr
