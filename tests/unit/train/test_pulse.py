"""A long run says where it stands, also where there is no terminal."""

from boldmill.train.pulse import Pulse


def beats(capsys, *, bar: bool = False, quiet: bool = False) -> list[str]:
    seconds = iter(range(0, 10_000, 20))
    pulse = Pulse(4, 13, bar=bar, quiet=quiet, clock=lambda: float(next(seconds)))
    for done in range(5, 14):
        pulse.beat(done, None if done < 7 else 0.5)
    pulse.bar.close()
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_a_minute(capsys) -> None:
    assert beats(capsys) == [
        "train: step 7 of 13, loss 0.5000, 20 s a step, 2.0 min left",
        "train: step 10 of 13, loss 0.5000, 20 s a step, 1.0 min left",
        "train: step 13 of 13, loss 0.5000, 20 s a step, 0.0 min left",
    ]


def test_a_terminal_gets_a_bar_and_other_ranks_nothing(capsys) -> None:
    assert not any(line.startswith("train: step") for line in beats(capsys, bar=True))
    assert beats(capsys, quiet=True) == []
