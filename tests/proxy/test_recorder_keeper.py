"""One recorder, kept running."""

from dataclasses import dataclass

from proxy.recorder_keeper import RecorderKeeper


@dataclass
class FakeRecorder:
    is_alive: bool = True
    stopped_s: float | None = None

    def stop(self, timeout_s: float) -> bool:
        self.stopped_s = timeout_s
        return True


class Starts:
    """Counts starts, and fails as long as it is told to."""

    def __init__(self) -> None:
        self.recorders: list[FakeRecorder] = []
        self.now_s = 100.0
        self.error: OSError | None = None

    def __call__(self) -> FakeRecorder:
        if self.error is not None:
            raise self.error
        self.recorders.append(FakeRecorder())
        return self.recorders[-1]


def test_a_recorder_is_started_once_and_again_when_it_died() -> None:
    starts = Starts()
    keeper = RecorderKeeper(starts, lambda: starts.now_s)
    problems = [keeper.problem]
    keeper.check()
    keeper.check()
    problems.append(keeper.problem)
    starts.recorders[0].is_alive = False
    problems.append(keeper.problem)
    starts.now_s += 5
    keeper.check()
    problems.append(keeper.problem)
    assert problems == ["the recorder does not run", None, "the recorder does not run", None]
    assert len(starts.recorders) == 2


def test_a_recorder_that_dies_at_once_is_not_started_in_a_loop() -> None:
    starts = Starts()
    keeper = RecorderKeeper(starts, lambda: starts.now_s)
    for _ in range(10):
        keeper.check()
        starts.recorders[-1].is_alive = False
        starts.now_s += 0.25
    assert len(starts.recorders) == 3


def test_a_recorder_that_cannot_be_started_is_a_problem_and_no_error() -> None:
    starts = Starts()
    starts.error = OSError("no processes left")
    keeper = RecorderKeeper(starts, lambda: starts.now_s)
    keeper.check()
    assert keeper.problem == "the recorder does not run"
    keeper.stop(1.0)


def test_stopping_waits_for_the_last_records() -> None:
    starts = Starts()
    keeper = RecorderKeeper(starts, lambda: starts.now_s)
    keeper.check()
    keeper.stop(3.0)
    assert starts.recorders[0].stopped_s == 3.0
