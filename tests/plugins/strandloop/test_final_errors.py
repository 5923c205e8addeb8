import pytest
from airflow.sdk.exceptions import AirflowFailException

from strandloop.final_errors import fail_once
from tasks.errors import InvalidBatch, StorageError


def test_an_error_that_a_retry_cannot_help_ends_the_task_with_its_own_words() -> None:
    @fail_once
    def body(batch_id: str) -> None:
        raise InvalidBatch(batch_id, ["reads_1.fq.gz is missing"])

    with pytest.raises(AirflowFailException, match=r"reads_1\.fq\.gz is missing"):
        body("2026-11-20")


@pytest.mark.parametrize("error", [StorageError("503"), RuntimeError("unknown")])
def test_any_other_error_is_left_to_airflows_retries(error: Exception) -> None:
    @fail_once
    def body() -> None:
        raise error

    with pytest.raises(type(error)):
        body()


def test_the_result_and_the_signature_pass_through() -> None:
    @fail_once
    def body(a: int, b: int = 2) -> int:
        return a + b

    assert body(1) == 3
    assert body.__name__ == "body"
