"""Parts of paths that several resources have. They come after the caller in a signature: who, then what."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends

from gateway.http.problems import Problem
from ledger.identifiers import JobId, is_identifier


async def job_of_path(job_id: str) -> JobId:
    """Dependency: the job of the path. Raises `Problem` 404 for what is no job's id."""
    if not is_identifier(job_id, "job"):
        raise Problem("job_not_found", "There is no such generation.")
    return JobId(job_id)


PathJob: TypeAlias = Annotated[JobId, Depends(job_of_path)]
