"""Filters of histories, held against the definition: nothing more and nothing less goes."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.data.histories.filters import FilterConfig, filter_histories
from recsys_core.data.schema import HISTORIES

MINUTE = 60_000_000
Event = tuple[int, int]
"""item_idx and minute."""
User = tuple[list[Event], int, int]
"""Events, train_end, validation_end."""


def _write(folder: Path, users: list[User]) -> list[Path]:
    paths: list[Path] = []
    for at in range(2):
        rows = [
            (
                f"u{n}",
                [item for item, _ in events],
                [minute * MINUTE for _, minute in events],
                [0] * len(events),
                [True] * len(events),
                train,
                validation,
            )
            for n, (events, train, validation) in enumerate(users)
            if n % 2 == at
        ]
        paths.append(folder / f"bucket-{at:03d}.parquet")
        pl.DataFrame(rows, schema=HISTORIES, orient="row").write_parquet(paths[-1])
    return paths


def _read(paths: list[Path]) -> dict[str, User]:
    table = pl.concat(pl.read_parquet(path) for path in paths)
    assert table.schema == HISTORIES
    return {
        row["user_id"]: (
            [(i, t // MINUTE) for i, t in zip(row["item_idx"], row["timestamp"], strict=True)],
            row["train_end"],
            row["validation_end"],
        )
        for row in table.to_dicts()
    }


def _keep(user: User, wanted: list[bool]) -> User:
    events, train, validation = user
    kept = [event for event, keep in zip(events, wanted, strict=True) if keep]
    return kept, sum(wanted[:train]), sum(wanted[:validation])


def _by_definition(users: dict[str, User], config: FilterConfig) -> dict[str, User]:
    """The slow way: take out one offender at a time until there is none."""
    users = {name: _keep(user, _in_sessions(user, config)) for name, user in users.items()}
    while True:
        counts = Counter(i for events, train, _ in users.values() for i, _ in events[:train])
        poor = [name for name, user in users.items() if user[1] < config.min_user_events]
        everything = {i for events, _, _ in users.values() for i, _ in events}
        rare = [i for i in everything if counts[i] < config.min_item_events]
        if poor:
            users.pop(poor[0])
        elif rare:
            users = {
                name: _keep(user, [i != rare[0] for i, _ in user[0]])
                for name, user in users.items()
            }
        else:
            return {name: user for name, user in users.items() if user[0]}


def _in_sessions(user: User, config: FilterConfig) -> list[bool]:
    events, train, _ = user
    session, sessions = 0, list[int]()
    for at, (_, minute) in enumerate(events):
        session += at > 0 and minute - events[at - 1][1] > config.session_gap_minutes
        sessions.append(session)
    n_training = Counter(sessions[:train])
    return [
        at >= train or n_training[one] >= config.min_session_events
        for at, one in enumerate(sessions)
    ]


@st.composite
def histories(draw: st.DrawFn) -> User:
    events = draw(
        st.lists(st.tuples(st.integers(1, 6), st.integers(0, 300)), max_size=8, min_size=1)
    )
    events.sort(key=lambda event: event[1])
    train = draw(st.integers(0, len(events)))
    return events, train, draw(st.integers(train, len(events)))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(histories(), max_size=10),
    st.builds(
        FilterConfig,
        min_session_events=st.integers(1, 3),
        session_gap_minutes=st.just(30),
        min_user_events=st.integers(0, 3),
        min_item_events=st.integers(0, 3),
    ),
)
def test_what_is_left_is_what_the_definition_says(
    tmp_path_factory: pytest.TempPathFactory, users: list[User], config: FilterConfig
) -> None:
    paths = _write(tmp_path_factory.mktemp("filter"), users)
    before = _read(paths)

    dropped = filter_histories(paths, config, n_items=6)

    after = _read(paths)
    assert after == _by_definition(before, config)
    assert dropped.users == len(before) - len(after)
    assert dropped.events == sum(len(user[0]) for user in before.values()) - sum(
        len(user[0]) for user in after.values()
    )


def test_later_windows_change_nothing_of_what_training_keeps(tmp_path: Path) -> None:
    """An item that is popular from validation on only is as rare as it was."""
    learned = [(1, 0), (2, 1), (1, 2)]
    users: list[User] = [(learned, 3, 3), ([(2, 0), (3, 9), (3, 10), (3, 11)], 1, 2)]
    paths = _write(tmp_path, users)
    filter_histories(paths, FilterConfig(min_item_events=2), n_items=3)
    assert _read(paths) == {"u0": (learned, 3, 3), "u1": ([(2, 0)], 1, 1)}


def test_nothing_is_left_out_by_default(tmp_path: Path) -> None:
    assert not FilterConfig().any
    users: list[User] = [([(1, 0)], 0, 0), ([(2, 0)], 1, 1)]
    paths = _write(tmp_path, users)
    before = _read(paths)
    assert filter_histories(paths, FilterConfig(), n_items=2) == (0, 0, 0)
    assert _read(paths) == before
