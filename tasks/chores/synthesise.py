"""Writing or extending the synthetic world."""

from datetime import date, timedelta
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from recsys_core.synthetic.world import WorldConfig, write_world
from tasks.engine.progress import StageProgress


@task(cache_policy=NO_CACHE, persist_result=False)
def synthesise(folder: Path, world: WorldConfig, *, days: int, run_date: date) -> None:
    """Write the synthetic world's files up to the day before the run date.

    Args:
        folder: Folder of the files.
        world: Settings of the world.
        days: Number of days of a new world.
        run_date: The night's date.
    """
    through = run_date - timedelta(days=1)
    logger = get_run_logger()
    with StageProgress("synthesise", logger) as progress:
        write_world(
            folder,
            world,
            first_day=run_date - timedelta(days=days),
            through=through,
            progress=progress,
        )
    logger.info("The synthetic world in %s reaches through %s", folder, through)
